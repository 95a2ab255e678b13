"""Evaluation of models on remote-sensing benchmarks, and of files of responses."""
