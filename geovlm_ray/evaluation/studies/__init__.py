"""Studies: questions that the paper or its reviewers leave open, each answered by a few small runs."""
