"""Web page for interactive inference on uploaded images."""
