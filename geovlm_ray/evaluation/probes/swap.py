"""The factual swap: a caption that reads like its reference and says something else."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORD = re.compile(r"[A-Za-z]+|\d+")


def _both_ways(pairs: str) -> dict[str, str]:
    """``a:b`` pairs as a mapping of each to the other."""
    split = [pair.split(":") for pair in pairs.split()]
    return {a: b for pair in split for a, b in (pair, pair[::-1])}


def _round(words: str) -> dict[str, str]:
    """Each word to the next, the last to the first."""
    names = words.split()
    return dict(zip(names, [*names[1:], names[0]], strict=True))


_DIRECTIONS = _both_ways(
    "left:right top:bottom upper:lower above:below north:south east:west northern:southern eastern:western "
    "northwest:southeast northeast:southwest"
) | {"center": "left", "middle": "right"}
_NUMBERS = (
    {str(n): str(n + 1) for n in range(1, 100)}
    | _round("two three four five six seven eight nine ten")
    | {"one": "three"}
)
_COLOURS = _round("red green blue white grey black brown yellow orange silver") | {"gray": "black"}
_NEGATION = {
    "no": "a", "not": "", "nothing": "everything", "none": "all", "without": "with", "same": "other",
    "identical": "different",
}  # fmt: skip
_OBJECTS = _round(
    "building ship road plane tree vehicle water farmland harbor stadium house airport bridge church forest court"
) | _round("buildings ships roads planes trees vehicles houses bridges cars")
_SWAPS = (_NUMBERS | _DIRECTIONS | _COLOURS, _NEGATION, _OBJECTS)


def swapped(text: str) -> str:
    """The text with its numbers, directions and colours exchanged; without any, its negation, else its objects."""
    for table in _SWAPS:
        other = " ".join(_exchanged(text, table).split())
        if other != " ".join(text.split()):
            return other
    return text


def _exchanged(text: str, table: Mapping[str, str]) -> str:
    return _WORD.sub(lambda word: table.get(word[0].lower(), word[0]), text)
