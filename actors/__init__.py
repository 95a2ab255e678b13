"""Ray actors for the components of the training loop; the only package that imports ray."""
