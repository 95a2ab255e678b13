"""Evaluation: of given responses, and of models on the benchmarks of the field."""
