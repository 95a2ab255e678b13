"""Parsing of class lists, including vocabularies whose names contain commas.

The 43 and 19 class names are BigEarthNet's (Sumbul et al., IGARSS 2019; 19-class nomenclature: Sumbul et al.,
BigEarthNet-MM, 2021), based on CORINE Land Cover level 3.
"""

from __future__ import annotations

import functools
import re

BIGEARTHNET_43 = (
    "Continuous urban fabric", "Discontinuous urban fabric", "Industrial or commercial units",
    "Road and rail networks and associated land", "Port areas", "Airports", "Mineral extraction sites", "Dump sites",
    "Construction sites", "Green urban areas", "Sport and leisure facilities", "Non-irrigated arable land",
    "Permanently irrigated land", "Rice fields", "Vineyards", "Fruit trees and berry plantations", "Olive groves",
    "Pastures", "Annual crops associated with permanent crops", "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation", "Agro-forestry areas",
    "Broad-leaved forest", "Coniferous forest", "Mixed forest", "Natural grassland", "Moors and heathland",
    "Sclerophyllous vegetation", "Transitional woodland/shrub", "Beaches, dunes, sands", "Bare rock",
    "Sparsely vegetated areas", "Burnt areas", "Inland marshes", "Peatbogs", "Salt marshes", "Salines",
    "Intertidal flats", "Water courses", "Water bodies", "Coastal lagoons", "Estuaries", "Sea and ocean",
)  # fmt: skip
BIGEARTHNET_19 = (
    "Urban fabric", "Industrial or commercial units", "Arable land", "Permanent crops", "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation", "Agro-forestry areas",
    "Broad-leaved forest", "Coniferous forest", "Mixed forest", "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation", "Transitional woodland, shrub", "Beaches, dunes, sands",
    "Inland wetlands", "Coastal wetlands", "Inland waters", "Marine waters",
)  # fmt: skip
BIGEARTHNET = tuple(dict.fromkeys(BIGEARTHNET_43 + BIGEARTHNET_19))

_DELIMITERS = re.compile(r"[,;\n]")
_SEPARATORS = re.compile(r"[\s_\-]+")
_TRIM = " \t\r\n.:'\"`*•()[]{}"


def label_key(name: str) -> str:
    """Normalized label: case, whitespace, underscores and hyphens are ignored."""
    return _SEPARATORS.sub("", name).strip(_TRIM).casefold()


def parse_labels(
    answer: str, target: tuple[str, ...] = (), labels: tuple[str, ...] = (), *, repeats: bool = False
) -> list[str]:
    """Label keys in an answer, in order and without duplicates (with them if ``repeats``).

    Names of the vocabulary are matched as units, longest first, even if they contain commas. The vocabulary is
    ``labels`` plus the target's names; without ``labels``, the target's names and then BigEarthNet's. The rest is split
    at commas, semicolons and newlines. A name must be delimited: ``broad-leaved forest`` does not match ``forest``.
    """
    pieces: list[str | None] = [*_pieces(answer)]
    claimed: dict[int, str] = {}
    vocabularies = [_vocabulary(names) for names in (((*labels, *target),) if labels else (target, BIGEARTHNET))]
    for vocabulary in vocabularies:
        _claim(pieces, vocabulary, claimed)
    found: list[str] = []
    for i, piece in enumerate(pieces):
        if i in claimed:
            found.append(claimed[i])
        elif piece is not None:
            found.extend(_unclaimed(piece, vocabularies))
    return found if repeats else list(dict.fromkeys(found))


def split_labels(text: str, names: tuple[str, ...] = BIGEARTHNET) -> list[str]:
    """Split a list into names, keeping their spelling; names in ``names`` that contain commas are not split."""
    pieces = _pieces(text)
    keys, vocabulary = [label_key(piece) for piece in pieces], _vocabulary(names)
    found: list[str] = []
    i = 0
    while i < len(pieces):
        lengths = range(min(vocabulary.longest, len(pieces) - i), 1, -1)
        length = next((n for n in lengths if ",".join(keys[i : i + n]) in vocabulary.keys), 1)
        found.append(", ".join(pieces[i : i + length]))
        i += length
    return found


def label_keys(names: tuple[str, ...]) -> list[str]:
    """Keys that `parse_labels` returns for these names, without duplicates."""
    return list(dict.fromkeys(_vocabulary(names).keys.values()))


class _Vocabulary:
    """Label names: ``keys`` maps spellings to label keys; ``longest`` is the maximum number of delimited pieces."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.keys: dict[str, str] = {}
        self.longest = 0
        for name in names:
            pieces = [label_key(piece) for piece in _pieces(name)]
            if any(pieces):
                self.keys["".join(pieces)] = self.keys[",".join(pieces)] = "".join(pieces)
                self.longest = max(self.longest, len(pieces))


_vocabulary = functools.lru_cache(maxsize=4096)(_Vocabulary)


def _pieces(text: str) -> list[str]:
    """The delimited pieces of a text that are not empty, without a leading "and"."""
    stripped = (piece.strip(_TRIM) for piece in _DELIMITERS.split(text))
    pieces = (piece[4:].strip(_TRIM) if piece[:4].lower() == "and " else piece for piece in stripped)
    return [piece for piece in pieces if piece]


def _unclaimed(piece: str, vocabularies: list[_Vocabulary]) -> list[str]:
    """Keys of a piece that matched no name: names joined by "and", or the piece itself."""
    parts = [label_key(p) for p in piece.split(" and ")]
    if len(parts) > 1 and all(any(p in v.keys for v in vocabularies) for p in parts):
        return parts
    key = label_key(piece)
    return [key] if key else []


def _claim(pieces: list[str | None], vocabulary: _Vocabulary, claimed: dict[int, str]) -> None:
    """Match runs of pieces to names, longest first, into ``claimed``; matched pieces become None."""
    keys = [label_key(p) if p is not None else None for p in pieces]
    for length in range(min(vocabulary.longest, len(pieces)), 0, -1):
        for i in range(len(pieces) - length + 1):
            run = [k for k in keys[i : i + length] if k is not None]
            name = vocabulary.keys.get(",".join(run)) if len(run) == length else None
            if name is not None:
                claimed[i] = name
                pieces[i : i + length] = [None] * length
                keys[i : i + length] = [None] * length
