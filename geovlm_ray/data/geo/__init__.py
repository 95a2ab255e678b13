"""Georeferenced scenes of any size."""
