"""The model out: a whole Hugging Face folder with its card."""
