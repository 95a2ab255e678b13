"""Which engine draws which prompts."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.schema import Prompt

IMAGE_CHARACTERS = 1_000
"""Characters of text that are about as much to read as one image (256 visual tokens at 448 x 448)."""


def deal(prompts: Sequence[Prompt], engines: int) -> list[list[Prompt]]:
    """The prompts in as many parts as there are engines, each with about as much to read.

    The longest prompt goes first, always to the engine with the least so far (Graham's rule, SIAM J. Appl. Math. 17,
    1969: at most 4/3 of the best possible), so that the longest ones are also drawn first.
    """
    parts: list[list[Prompt]] = [[] for _ in range(engines)]
    loads = [0] * engines
    for prompt in sorted(prompts, key=lambda p: (-_length(p), p.group_id)):
        least = loads.index(min(loads))
        parts[least].append(prompt)
        loads[least] += _length(prompt)
    return parts


def _length(prompt: Prompt) -> int:
    return len(prompt.example.question) + IMAGE_CHARACTERS * len(prompt.example.images)
