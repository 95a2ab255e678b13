"""GPU planning: measured rates, a discrete-event simulator of the training loop, and a search over its settings."""
