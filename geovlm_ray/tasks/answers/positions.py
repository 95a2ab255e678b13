"""Positions in the image and comparisons in answers. North is up, as in map-projected images."""

from __future__ import annotations

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


def position_agreement(answer: frozenset[str], truth: frozenset[str]) -> float:
    """Jaccard similarity of the named sides; 0 if the answer names an opposite side."""
    if any(side & (answer | truth) == side for side in _OPPOSITE):
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
