"""Prefill cost of prompts, by which they are balanced over engines."""

from __future__ import annotations

from geovlm_ray.core.schema import Prompt

IMAGE_CHARACTERS = 1_000
"""Characters of text with about the prefill cost of one image (256 visual tokens at 448 x 448)."""


def prompt_cost(prompt: Prompt) -> int:
    """Estimated prefill cost of a prompt with its images, in characters."""
    return len(prompt.example.question) + IMAGE_CHARACTERS * len(prompt.example.images)
