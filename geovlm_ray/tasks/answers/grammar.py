"""Response grammar: ``<think>reasoning</think><answer>final answer</answer>``."""

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


class Parsed(NamedTuple):
    """Parts of a well-formed response; ``think`` is None in no-think mode."""

    think: str | None
    answer: str


def parse_response(text: str, think: ThinkMode = "required") -> Parsed | None:
    """Split a response into reasoning and answer; None if it violates the grammar.

    Strict: each tag of the mode exactly once and in order, no think tags in no-think mode, only whitespace outside the
    tags. Tags are case-sensitive. Linear in the length of the text.
    """
    if _TAG.findall(text) != _TAGS[think]:
        return None
    think_text, outside, rest = None, "", text
    if think == "required":
        outside, _, rest = rest.partition("<think>")
        think_text, _, rest = rest.partition("</think>")
    before, _, rest = rest.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    return None if (outside + before + after).strip() else Parsed(think_text, answer)
