"""The facts of a caption: numbers, directions, colours, negation and objects, compared between two texts.

Embeddings and lexical overlap hardly see a swapped fact; this does. North is up, as in every map-projected
image, so that north and top are one direction.
"""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")

_NUMBERS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_DIRECTIONS = {
    "left": "left west western westward leftmost",
    "right": "right east eastern eastward rightmost",
    "top": "top upper above north northern northward topmost",
    "bottom": "bottom lower below south southern southward bottommost",
    "center": "center centre central middle",
    "top left": "northwest northwestern",
    "top right": "northeast northeastern",
    "bottom left": "southwest southwestern",
    "bottom right": "southeast southeastern",
}
_COLOURS = {
    "red": "red reddish", "green": "green greenish", "blue": "blue bluish", "white": "white whitish",
    "grey": "grey gray greyish grayish", "black": "black", "brown": "brown brownish", "yellow": "yellow yellowish",
    "orange": "orange", "beige": "beige", "silver": "silver", "purple": "purple", "pink": "pink",
}  # fmt: skip
_NEGATION = "no not none nothing never without unchanged same identical neither nor absent"
_OBJECTS = {
    "ship": "ship boat vessel", "plane": "plane airplane aircraft aeroplane jet", "vehicle": "vehicle car truck van",
    "storage tank": "tank", "building": "building house structure villa roof rooftop apartment home",
    "road": "road street highway lane path", "bridge": "bridge overpass", "tree": "tree forest wood woodland",
    "water": "water river lake sea pond ocean", "farmland": "farmland field cropland farm crop agricultural",
    "bare ground": "bare soil bareland wasteland", "grass": "grass grassland lawn meadow", "parking lot": "parking",
    "harbor": "harbor harbour port dock pier", "court": "court", "stadium": "stadium", "runway": "runway airport",
    "pool": "pool", "roundabout": "roundabout", "crane": "crane", "helicopter": "helicopter", "chimney": "chimney",
    "train": "train railway rail", "windmill": "windmill turbine", "bridge deck": "dam", "residential": "residential",
    "industrial": "industrial factory", "beach": "beach sand", "ship yard": "shipyard", "container": "container",
}  # fmt: skip

Fact = tuple[str, str]


def _vocabulary() -> dict[str, tuple[Fact, ...]]:
    words: dict[str, tuple[Fact, ...]] = {word: (("number", str(n)),) for n, word in enumerate(_NUMBERS, 2)}
    for names, spellings in _DIRECTIONS.items():
        words |= {s: tuple(("direction", name) for name in names.split()) for s in spellings.split()}
    for kind, table in (("colour", _COLOURS), ("object", _OBJECTS)):
        for name, spellings in table.items():
            words |= dict.fromkeys(spellings.split(), ((kind, name),))
    words |= dict.fromkeys(_NEGATION.split(), (("negation", "not"),))
    return words


_VOCABULARY = _vocabulary()


def facts(text: str) -> dict[str, Counter[str]]:
    """The facts of a text by kind: ``number``, ``direction``, ``colour``, ``negation``, ``object``.

    The number one is left out, as "a ship" and "one ship" say the same; objects and negation count once.
    """
    found: dict[str, Counter[str]] = {}
    for word in _WORD.findall(text.casefold()):
        if word[0].isdigit():
            known: tuple[Fact, ...] = () if float(word) == 1 else (("number", f"{float(word):g}"),)
        else:
            known = _VOCABULARY.get(word) or _VOCABULARY.get(word.removesuffix("s")) or ()
        for kind, name in known:
            found.setdefault(kind, Counter())[name] += 1
    for kind in ("object", "negation"):
        if kind in found:
            found[kind] = Counter(set(found[kind]))
    return found


def agreement(answer: str, reference: str, floor: float = 0.2) -> float:
    """How far the facts of two texts agree, in [0, 1].

    Per kind of fact the F1 of the two bags (1 where neither text has any), raised to at least ``floor``; the
    product over the kinds, so that one swapped kind leaves about a fifth and two a twenty-fifth.
    """
    left, right = facts(answer), facts(reference)
    value = 1.0
    for kind in {*left, *right}:
        a, b = left.get(kind, Counter()), right.get(kind, Counter())
        f1 = 2 * (a & b).total() / (a.total() + b.total())
        value *= floor + (1 - floor) * f1
    return value
