r"""The part of an answer that it marks as its result: ``\boxed{...}``, or what follows "the final answer is"."""

from __future__ import annotations

import re

_BOXED = "\\boxed{"
_QUESTION = re.compile(r"[^.!?\n]{12,}\?+")
_MARKER = re.compile(
    r"\b(?:final|correct|best|my)\s{1,3}(?:answer|choice)\b\W{0,4}(?:(?:is|would be)\b)?"
    r"|\banswer\W{0,4}?(?:\bis\b|:)|\bans\s?:",
    re.IGNORECASE,
)


def conclusion(text: str) -> str:
    r"""The content of the last ``\boxed{}``, else the text after the last "answer is" or "answer:", else the text.

    Questions, which models repeat before they answer, are no part of it.
    """
    if "?" in text:
        text = _QUESTION.sub(" ", text) if _QUESTION.sub("", text).strip() else ""
    start = text.rfind(_BOXED)
    if start >= 0:
        return _to_closing_brace(text, start + len(_BOXED)) or text
    if "ans" in text or "nswer" in text or "hoice" in text:
        rest = [text[match.end() :] for match in _last(_MARKER, text)]
        if rest and any(character.isalnum() for character in rest[0]):
            return rest[0].lstrip(" :*")
    return text


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    last: list[re.Match[str]] = []
    for match in pattern.finditer(text):
        last = [match]
    return last


def _to_closing_brace(text: str, start: int) -> str:
    """The text from a position to the brace that closes one opened before it."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[start:end]
    return text[start:]
