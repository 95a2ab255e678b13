"""Answers that say the same several times."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.tasks.answers.words import DELIMITERS


def said_once(words: list[str]) -> list[str]:
    """The words of one copy of an answer that says the same twice; without the delimiters at the end."""
    start, end = 0, len(words)
    while end and words[end - 1] in DELIMITERS:
        end -= 1
    while start < end and words[start] in DELIMITERS:
        start += 1
    kept = words[start:end]
    bare = [word for word in kept if word not in DELIMITERS]
    once = first_of_two(bare)
    return kept if once is bare else once


def first_of_two(words: list[str]) -> list[str]:
    """The first half of words that repeat it exactly once, else the words."""
    half = len(words) // 2
    if not half or len(words) % 2 or words[:half] != words[half:]:
        return words
    text = " ".join([*words[:half], ""])
    repeats_itself = (text + text).index(text, 1) < len(text)
    return words if repeats_itself else words[:half]


def repeats(words: Sequence[str]) -> bool:
    """Whether an answer of several words consists of repetitions; an answer that is said twice does not."""
    bare = [word for word in words if word not in DELIMITERS]
    return len(bare) > 2 and 2 * len(set(bare)) <= len(bare) and first_of_two(bare) is bare
