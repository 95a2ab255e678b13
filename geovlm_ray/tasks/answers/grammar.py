"""Response grammar: ``<think>reasoning</think><answer>final answer</answer>``.

A stated confidence may follow, as in RLCR (Damani et al., 2025): ``<confidence>0.8</confidence>``, from 0 to 1.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

ThinkMode = Literal["required", "none"]
_TAG = re.compile(r"</?(?:think|answer)>")
_TAGS: dict[ThinkMode, list[str]] = {
    "required": ["<think>", "</think>", "<answer>", "</answer>"],
    "none": ["<answer>", "</answer>"],
}
"""The tags of a response by mode."""


_CONFIDENCE = re.compile(r"<confidence>\s*(0(?:\.\d{0,9})?|1(?:\.0{0,9})?|\.\d{1,9})\s*</confidence>\s*\Z", re.ASCII)


class Parsed(NamedTuple):
    """Parts of a well-formed response; ``think`` is None in no-think mode, ``confidence`` if none is stated."""

    think: str | None
    answer: str
    confidence: float | None = None


def written_response(answer: str, reasoning: str | None = None, confidence: float | None = None) -> str:
    """A response of its parts; without ``reasoning`` or ``confidence``, it has no such tags."""
    think = "" if reasoning is None else f"<think>{reasoning}</think>"
    stated = "" if confidence is None else f"<confidence>{confidence:g}</confidence>"
    return f"{think}<answer>{answer}</answer>{stated}"


def parse_response(text: str, think: ThinkMode = "required") -> Parsed | None:
    """Split a response into reasoning and answer; None if it violates the grammar.

    Strict: each tag of the mode exactly once and in order, no think tags in no-think mode, only whitespace and, at the
    end, a confidence outside the tags. Tags are case-sensitive. Linear in the length of the text.
    """
    if _TAG.findall(text) != _TAGS[think]:
        return None
    stated = _CONFIDENCE.search(text, max(0, text.rfind("<confidence>")))
    think_text, outside, rest = None, "", text[: stated.start()] if stated else text
    if think == "required":
        outside, _, rest = rest.partition("<think>")
        think_text, _, rest = rest.partition("</think>")
    before, _, rest = rest.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    confidence = float(stated[1]) if stated else None
    return None if (outside + before + after).strip() else Parsed(think_text, answer, confidence)
