"""Factual swap: a caption that resembles its reference but states different facts."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORD = re.compile(r"[A-Za-z]+|\d+")


def _bidirectional(pairs: str) -> dict[str, str]:
    """``a:b`` pairs as a mapping in both directions."""
    split = [pair.split(":") for pair in pairs.split()]
    return {a: b for pair in split for a, b in (pair, pair[::-1])}


def _cyclic(words: str) -> dict[str, str]:
    """A mapping of each word to the next, and of the last to the first."""
    names = words.split()
    return dict(zip(names, [*names[1:], names[0]], strict=True))


_DIRECTIONS = _bidirectional(
    "left:right top:bottom upper:lower above:below north:south east:west northern:southern eastern:western "
    "northwest:southeast northeast:southwest"
) | {"center": "left", "middle": "right"}
_NUMBERS = (
    {str(n): str(n + 1) for n in range(1, 100)}
    | _cyclic("two three four five six seven eight nine ten")
    | {"one": "three"}
)
_SIZES = _bidirectional(
    "large:small big:little huge:tiny larger:smaller largest:smallest wide:narrow long:short tall:low broad:thin"
)
_DENSITY = _bidirectional("many:few numerous:few dense:sparse densely:sparsely crowded:sparse") | {
    "several": "hundreds", "lots": "hardly any", "few": "many",
}  # fmt: skip
_CHANGES = _bidirectional(
    "built:demolished constructed:dismantled appear:disappear appears:disappears appeared:disappeared added:removed "
    "planted:cleared expanded:shrunk increased:decreased flooded:dried widened:narrowed erected:razed"
)
_COLOURS = _cyclic("red green blue white grey black brown yellow orange silver") | {"gray": "black"}
_NEGATION = {
    "no": "a", "not": "", "nothing": "everything", "none": "all", "without": "with", "same": "other",
    "identical": "different",
}  # fmt: skip
_OBJECTS = _cyclic(
    "building ship road plane tree vehicle water farmland harbor stadium house airport bridge church forest court"
) | _cyclic("buildings ships roads planes trees vehicles houses bridges cars")
_SWAPS = (_NUMBERS | _DIRECTIONS | _COLOURS | _SIZES | _DENSITY | _CHANGES, _NEGATION, _OBJECTS)


def swapped(text: str) -> str:
    """Swap numbers, directions, colours, sizes, densities and changes; if none, negations; otherwise objects."""
    for table in _SWAPS:
        other = " ".join(_replace_words(text, table).split())
        if other != " ".join(text.split()):
            return other
    return text


def _replace_words(text: str, table: Mapping[str, str]) -> str:
    return _WORD.sub(lambda word: table.get(word[0].lower(), word[0]), text)
