"""Reinforcement fine-tuning of vision-language models for remote sensing (GeoVLM-R1, arXiv 2509.25026)."""

__version__ = "0.1.0"
