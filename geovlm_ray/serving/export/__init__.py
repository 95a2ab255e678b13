"""Export of a trained model as a merged Hugging Face folder with a model card."""
