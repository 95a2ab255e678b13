"""Comparison of runs and evaluations: settings that differ, and paired significance tests."""
