"""Comparison of runs and evaluations: what differs between them, and what of it is more than chance."""
