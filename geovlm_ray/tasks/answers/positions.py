"""Positions in the image and comparisons in answers. North is up, as in map-projected images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from geovlm_ray.tasks.answers.phrases import phrase_words
from geovlm_ray.tasks.answers.words import DELIMITERS, word_set

_SIDES = {
    spelling: frozenset(names.split())
    for names, spellings in {
        "top": "top upper north northern topmost uppermost n", "bottom": "bottom lower south southern bottommost s",
        "left": "left west western leftmost w lefthand", "right": "right east eastern rightmost e righthand",
        "center": "center middle centrally", "top left": "northwest northwestern nw topleft upperleft",
        "top right": "northeast northeastern ne topright upperright",
        "bottom left": "southwest southwestern sw bottomleft lowerleft",
        "bottom right": "southeast southeastern se bottomright lowerright",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
POSITION_WORDS = word_set(
    "corner side part area region portion edge half quadrant section hand the a an of in at on to toward towards image "
    "picture photo scene it is located direction end border position frame margin most near very third"
)
"""Words that stand around the names of sides."""
_ABBREVIATIONS = word_set("n s w e")
_MIRRORED = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "center": "center"}
_OPPOSITE = ({"left", "right"}, {"top", "bottom"})
_DIRECTED = {
    word: (dimension, sign)
    for dimension, pairs in {
        "amount": ("more less", "greater fewer", "higher lower"), "size": ("larger smaller", "bigger smaller"),
        "length": ("longer shorter", "wider narrower"), "height": ("taller shorter",), "density": ("denser sparser",),
        "age": ("older newer", "older younger"), "distance": ("farther closer", "further nearer"),
        "brightness": ("brighter darker", "lighter darker"), "order": ("later earlier", "after before"),
    }.items()
    for pair in pairs
    for word, sign in zip(pair.split(), (1, -1), strict=True)
}  # fmt: skip
_EQUAL = word_set("equal same equally identical")
_ELSEWHERE = word_set("nowhere opposite away except excluding outside")
_ELSEWHERE_PAIRS = frozenset((("far", "from"), ("anywhere", "but"), ("everywhere", "but")))
_GENERAL = frozenset(("amount", "size"))


def is_side(word: str) -> bool:
    """Whether a token names a side."""
    return word in _SIDES


def whole_position(words: Sequence[str]) -> frozenset[str] | None:
    """The sides that a text names if it names nothing else."""
    if (
        any(word not in _SIDES and word not in POSITION_WORDS and word not in DELIMITERS for word in words)
        or "from" in words
    ):
        return None
    found = positions(words)
    return found if found and not (len(words) == 1 and words[0] in _ABBREVIATIONS) else None


def positions(words: Sequence[str]) -> frozenset[str]:
    """The sides of the image that tokens name: top, bottom, left, right, center."""
    return frozenset().union(*(_SIDES[word] for word in words if word in _SIDES))


def located(words: Sequence[str]) -> frozenset[str]:
    """The sides where tokens locate an object: without those after "opposite", "far from" and the like."""
    found: list[str] = []
    before, elsewhere = "", False
    for word in words:
        elsewhere = word not in DELIMITERS and (elsewhere or word in _ELSEWHERE or (before, word) in _ELSEWHERE_PAIRS)
        if not elsewhere:
            found.append(word)
        before = word
    return positions(found)


def orientation(words: Sequence[str]) -> tuple[frozenset[str], ...] | None:
    """The two opposite ends of "north-south" or "from the upper left to the lower right", in order; None for others."""
    ends: list[frozenset[str]] = []
    before = ""
    for word in words:
        sides = _SIDES.get(word)
        if sides and before in _SIDES and not _are_opposite(ends[-1] | sides):
            ends[-1] |= sides
        elif sides:
            ends.append(sides)
        before = word
    is_pair = len(ends) == 2 and mirrored(ends[0]) == ends[1]
    return tuple(ends) if is_pair and ends[0] != ends[1] else None


def _are_opposite(sides: frozenset[str]) -> bool:
    return any(pair <= sides for pair in _OPPOSITE)


def mirrored(sides: frozenset[str]) -> frozenset[str]:
    """The opposite sides."""
    return frozenset(map(_MIRRORED.__getitem__, sides))


def position_agreement(answer: frozenset[str], truth: frozenset[str]) -> float:
    """Jaccard similarity of the named sides; 0 if the answer names an opposite side."""
    if _are_opposite(answer | truth):
        return 0.0
    return len(answer & truth) / len(answer | truth)


def whole_comparison(words: Sequence[str]) -> int | None:
    """Direction of a truth that is one comparative: 1 ("more"), -1 ("less"), 0 ("equal"); None for other texts."""
    if len(words) != 1:
        return None
    return 0 if words[0] in _EQUAL else _DIRECTED[words[0]][1] if words[0] in _DIRECTED else None


def directions(words: Sequence[str]) -> set[int]:
    """Directions of the comparatives among tokens."""
    found = {_DIRECTED[word][1] for word in words if word in _DIRECTED}
    return found | ({0} if not _EQUAL.isdisjoint(words) else set())


def asked_direction(question: Sequence[str]) -> tuple[str, int] | None:
    """Dimension and direction of the first comparative of a question ("Which is larger, ...?"); None without one."""
    return next((_DIRECTED[word] for word in question if word in _DIRECTED), None)


def one_sided_comparison(words: Sequence[str]) -> tuple[str, int, frozenset[str]] | None:
    """Dimension, direction and content words of "A is larger", without "than"; None for other tokens."""
    at = next((i for i, word in enumerate(words) if word in _DIRECTED), None)
    if at is None or "than" in words:
        return None
    dimension, sign = _DIRECTED[words[at]]
    sides = frozenset(phrase_words([*words[:at], *words[at + 1 :]]))
    return ("amount" if dimension in _GENERAL else dimension), sign, sides


def says_equal(words: Sequence[str]) -> bool:
    """Whether tokens say that two sides are equal: "the same number", "as many as"."""
    as_many = any(a == "as" and b in ("many", "much") for a, b in itertools.pairwise(words))
    return as_many or not _EQUAL.isdisjoint(words)


def comparison(words: Sequence[str]) -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
    """Dimension, greater side and smaller side of "A is larger than B"; None if the tokens do not compare."""
    if "than" not in words:
        return None
    than = words.index("than")
    at = next((i for i in range(than - 1, -1, -1) if words[i] in _DIRECTED), None)
    if at is None:
        return None
    dimension, sign = _DIRECTED[words[at]]
    left = tuple(phrase_words([*words[:at], *words[at + 1 : than]]))
    right = tuple(phrase_words(words[than + 1 :]))
    greater, smaller = (left, right) if sign > 0 else (right, left)
    return ("amount" if dimension in _GENERAL else dimension), greater, smaller
