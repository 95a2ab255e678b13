"""Response grammar: ``<think>reasoning</think><answer>final answer</answer>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ThinkMode = Literal["required", "none"]
_TAG = re.compile(r"</?(?:think|answer)>")
_THINK, _ANSWER = r"\s*<think>(?P<think>.*)</think>", r"\s*<answer>(?P<answer>.*)</answer>\s*"
_RESPONSES: dict[ThinkMode, tuple[int, re.Pattern[str]]] = {
    "required": (4, re.compile(_THINK + _ANSWER, re.DOTALL)),
    "none": (2, re.compile(_ANSWER, re.DOTALL)),
}
"""Number of tags and pattern of a response by mode."""


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
    num_tags, pattern = _RESPONSES[think]
    # More tags would make the pattern backtrack in quadratic time.
    found = pattern.fullmatch(text) if len(_TAG.findall(text)) == num_tags else None
    return Parsed(found.groupdict().get("think"), found["answer"]) if found else None
