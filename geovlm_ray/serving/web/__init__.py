"""The page on which a model is tried on one's own images."""
