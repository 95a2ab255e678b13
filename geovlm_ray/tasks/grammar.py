"""The answer grammar: ``<think>reasoning</think><answer>final answer</answer>``."""

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
    """The two parts of a well-formed response; ``think`` is None in the no-think mode."""

    think: str | None
    answer: str


def parse_response(text: str, think: ThinkMode = "required") -> Parsed | None:
    """Split a response into its parts, or None where it breaks the grammar.

    Strict: each tag of the mode exactly once, in order, no think tag in the no-think mode, and only white
    space outside the tags. Tags are case-sensitive. Time is linear in the length of the text.
    """
    tags = _TAGS[think]
    if any(text.count(tag) != (tag in tags) for tag in _TAGS["required"]):
        return None
    places = [text.index(tag) for tag in tags]
    if places != sorted(places):
        return None
    ends = [place + len(tag) for place, tag in zip(places, tags, strict=True)]
    outside = [text[: places[0]], text[ends[-1] :]]
    if think == "required":
        outside.append(text[ends[1] : places[2]])
    if any(part.strip() for part in outside):
        return None
    answer = text[ends[-2] : places[-1]]
    return Parsed(text[ends[0] : places[1]] if think == "required" else None, answer)
