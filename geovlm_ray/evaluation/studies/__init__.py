"""Studies: open questions of the paper or its reviewers, each investigated with a few small runs."""
