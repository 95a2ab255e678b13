"""How much an engine has to read for a prompt, by which prompts are dealt out."""

from __future__ import annotations

from geovlm_ray.core.schema import Prompt

IMAGE_CHARACTERS = 1_000
"""Characters of text that are about as much to read as one image (256 visual tokens at 448 x 448)."""


def prompt_cost(prompt: Prompt) -> int:
    """Length of a prompt with its images, in characters."""
    return len(prompt.example.question) + IMAGE_CHARACTERS * len(prompt.example.images)
