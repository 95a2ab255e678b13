"""Response grammar: ``<think>reasoning</think><answer>final answer</answer>``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThinkMode = Literal["required", "none"]
_TAGS = {
    "required": ("<think>", "</think>", "<answer>", "</answer>"),
    "none": ("<answer>", "</answer>"),
}


@dataclass(frozen=True)
class Parsed:
    """Parts of a well-formed response; ``think`` is None in no-think mode."""

    think: str | None
    answer: str


def parse_response(text: str, think: ThinkMode = "required") -> Parsed | None:
    """Split a response into reasoning and answer; None if it violates the grammar.

    Strict: each tag of the mode exactly once and in order, no think tags in no-think mode, only whitespace outside the
    tags. Tags are case-sensitive. Linear in the length of the text.
    """
    tags = _TAGS[think]
    if any(text.count(tag) != (tag in tags) for tag in _TAGS["required"]):
        return None
    starts = [text.index(tag) for tag in tags]
    if starts != sorted(starts):
        return None
    ends = [start + len(tag) for start, tag in zip(starts, tags, strict=True)]
    outside = [text[: starts[0]], text[ends[-1] :]]
    if think == "required":
        outside.append(text[ends[1] : starts[2]])
    if any(part.strip() for part in outside):
        return None
    answer = text[ends[-2] : starts[-1]]
    return Parsed(text[ends[0] : starts[1]] if think == "required" else None, answer)
