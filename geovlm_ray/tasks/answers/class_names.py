"""Class names of a dataset, found in what models write.

A name is found in plural and singular, in British and American spelling, with spaces, hyphens or joined
("storagetank"), without a general head noun ("dense residential area"), and under its synonyms.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from geovlm_ray.tasks.answers.labels import BIGEARTHNET, label_key
from geovlm_ray.tasks.answers.synonyms import RELATED, SYNONYMS, groups
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, LINE, tokens, word_set

CONNECTORS = frozenset({COMMA, LINE, "and", "or"})
"""Tokens inside names that lists of names contain too ("beaches, dunes, sands", "lake or pond")."""
HEADS = word_set("area region zone site scene building place land class category damage facility image type")
"""General nouns that answers add to a name or omit from it."""
NEGATORS = word_set(
    "no not non never without neither nor none cannot unlike excluding lack lacking rather instead nothing"
)

_WEAK = word_set(
    "any visible apparent obvious significant structural sign of evidence noticeable clear been appear to be show have "
    "seem major visibly observed further real evident detectable is are was were"
) - {"major"}
"""Words that may stand between "no" and the noun of a name ("no visible damage")."""
_COPULAS = word_set("is are was were")
_MIN_JOINED = 9
"""A word of this length may consist of several words."""
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_KEPT_HEADS = frozenset({"land", "image", "type"})
_MAX_CONNECTORS = 2
_MAX_RUN = 32
_MIN_BEGINNING = 4
XBD = ("no-damage", "minor-damage", "major-damage", "destroyed")
"""Damage classes of xBD (Gupta et al., 2019)."""


class Synonyms(NamedTuple):
    """Other names of classes, beside the shipped ones: ``groups`` of names that mean the same class.

    ``related`` adds the shipped groups of related names, such as ship and boat.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    related: bool = True


SHIPPED = Synonyms()
"""The shipped synonyms, with related names."""


@dataclass(frozen=True)
class Spelling:
    """One spelling of a class name: its joined words, their beginnings, and the `CONNECTORS` among them."""

    key: str
    prefixes: frozenset[str]
    gaps: tuple[str, ...]


class ClassNames:
    """A vocabulary of class names; names that mean the same class have the same key."""

    def __init__(self, names: tuple[str, ...], synonyms: Synonyms | None) -> None:
        self._keys: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._gaps: dict[str, set[tuple[str, ...]]] = {}
        self.prefixes: set[str] = set()
        for name in names:
            self._add(spelling_of(name), label_key(name))
            self._names.setdefault(self.key_for(name), name)
        if synonyms is not None:
            for level in range(2):
                self._add_unambiguous(names, synonyms, level)

    def key_of(self, text: str) -> str | None:
        """Key of the one class that a text names; None if it names none or several."""
        exact = self._keys.get(spelling_of(text).key) if len(text) <= MAX_CACHED_NAME else None
        if exact is not None:
            return exact
        found = self.keys_in(text)
        return found[0] if len(found) == 1 else None

    def keys_in(self, text: str) -> tuple[str, ...]:
        """Keys of the classes that a text names and does not negate, in order."""
        found: dict[str, None] = {}
        tokens_of_text = tokens(text)
        negated, i = False, 0
        while i < len(tokens_of_text):
            token = tokens_of_text[i]
            match = self.match(tokens_of_text, i) if token in self.prefixes else None
            if match:
                i = match[1]
                if not negated and not _is_modifier(tokens_of_text, i):
                    found[match[0]] = None
                continue
            negated = (negated or token in NEGATORS) and token not in CONNECTORS
            i += 1
        return tuple(found)

    def name_of(self, key: str) -> str:
        """The name of the vocabulary that has a key."""
        return self._names[key]

    def key_for(self, name: str) -> str:
        """Key of a name of the vocabulary."""
        return self._keys.get(spelling_of(name).key) or label_key(name)

    def key_of_joined(self, joined: str) -> str | None:
        """Key of the name with this joined spelling."""
        return self._keys.get(joined)

    def is_name(self, words: Sequence[str]) -> bool:
        """Whether tokens are a spelling of one name."""
        if not CONNECTORS.isdisjoint(words):
            words = [word for word in words if word not in CONNECTORS]
        return "".join(words) in self._keys

    def match(self, words: Sequence[str], start: int) -> tuple[str, int] | None:
        """Key of the longest name at a position of `tokens`, and the position after it.

        A name with the same delimiters precedes a longer one with others: "moors and heathland, sclerophyllous
        vegetation" is not "moors, heathland and sclerophyllous vegetation".
        """
        joined, best, exact = "", None, None
        gaps: list[str] = []
        for i in range(start, min(start + _MAX_RUN, len(words))):
            word = words[i]
            if word in CONNECTORS and joined:
                if len(gaps) >= _MAX_CONNECTORS and gaps[-_MAX_CONNECTORS:] == words[i - _MAX_CONNECTORS : i]:
                    break
                gaps.append(word)
                continue
            if joined and word in _WEAK and (word in _COPULAS or joined in NEGATORS):
                continue
            joined += word
            if joined not in self.prefixes:
                break
            key = self._keys.get(joined)
            if key is not None and (not gaps or joined in self._gaps):
                best = key, i + 1
                if not gaps or tuple(gaps) in self._gaps[joined]:
                    exact = best
        return exact if exact and best and exact[0] != best[0] else best

    def _add(self, spelling: Spelling, key: str) -> None:
        if spelling.key and self._keys.setdefault(spelling.key, key) == key:
            self.prefixes |= spelling.prefixes
            if spelling.gaps:
                self._gaps.setdefault(spelling.key, set()).add(spelling.gaps)

    def _add_unambiguous(self, names: tuple[str, ...], synonyms: Synonyms, level: int) -> None:
        """Add shorter forms (level 0) or synonyms (level 1) of the names, except those that two classes share."""
        found: dict[str, set[str]] = {}
        spellings = [(spelling, self.key_for(name)) for name in names for spelling in variants(name, synonyms)[level]]
        for spelling, key in spellings:
            found.setdefault(spelling.key, set()).add(key)
        for spelling, key in spellings:
            if len(found[spelling.key]) == 1:
                self._add(spelling, key)


MAX_CACHED_NAME = 256


@functools.lru_cache(maxsize=1 << 14)
def spelling_of(name: str) -> Spelling:
    """The normal form of a name as it is written; "SeaLake" is two words."""
    return _spelling(tokens(_CAMEL_CASE.sub(" ", name)))


def _spelling(parts: Sequence[str]) -> Spelling:
    joined = ""
    prefixes: set[str] = set()
    for word in parts:
        if word not in CONNECTORS and word not in DELIMITERS:
            if len(word) >= _MIN_JOINED:
                prefixes.update(joined + word[:end] for end in range(2, len(word)))
            joined += word
            prefixes.add(joined)
    return Spelling(joined, frozenset(prefixes), tuple(word for word in parts if word in CONNECTORS))


@functools.lru_cache(maxsize=1 << 14)
def variants(name: str, synonyms: Synonyms) -> tuple[tuple[Spelling, ...], tuple[Spelling, ...]]:
    """Other spellings of a name: shorter forms, and synonyms of the name and of its shorter forms."""
    parts = tokens(_CAMEL_CASE.sub(" ", name))
    shorter = []
    if len(parts) > 1 and parts[-1] in HEADS - _KEPT_HEADS and not NEGATORS.issuperset(parts[:-1]):
        shorter.append(_spelling(parts[:-1]))
    if COMMA in parts and parts.index(COMMA) >= _MIN_BEGINNING:
        shorter.append(_spelling(parts[: parts.index(COMMA)]))
    table = _synonym_table(synonyms)
    sides = _sides(parts)
    own = [spelling_of(name), *shorter, *sides]
    others = [spelling for form in own for spelling in table.get(form.key, ())]
    return tuple(shorter), (*sides, *others)


def _sides(parts: Sequence[str]) -> list[Spelling]:
    """The names on both sides of "or": "factory or powerplant" is either, "oil or gas facility" an oil facility."""
    if parts.count("or") != 1 or COMMA in parts:
        return []
    at = parts.index("or")
    left, right = parts[:at], parts[at + 1 :]
    ends = right[-1:] if len(left) < len(right) else []
    return [_spelling(side) for side in ([*left, *ends], right) if side]


@functools.lru_cache(maxsize=1 << 14)
def other_names(word: str, synonyms: Synonyms = SHIPPED) -> frozenset[str]:
    """A noun in its normal form and its synonyms, each joined to one word."""
    return frozenset((word, *(spelling.key for form in variants(word, synonyms) for spelling in form)))


@functools.lru_cache(maxsize=64)
def _synonym_table(synonyms: Synonyms) -> dict[str, tuple[Spelling, ...]]:
    """Spellings of the group of each name; a name in several groups has the spellings of all."""
    table: dict[str, tuple[Spelling, ...]] = {}
    for group in (*synonyms.groups, *(groups(RELATED) if synonyms.related else ()), *groups(SYNONYMS)):
        spellings = tuple(map(spelling_of, group))
        for spelling in spellings:
            table[spelling.key] = table.get(spelling.key, ()) + spellings
    return table


def _is_modifier(words: Sequence[str], end: int) -> bool:
    """Whether the name that ends before a position modifies another noun ("car park" for "car")."""
    following = words[end] if end < len(words) else COMMA
    return following.isalpha() and following not in HEADS and following not in AFTER_NAMES and following[-2:] != "ed"


AFTER_NAMES = word_set(
    "and or in on at near with of by to from beside next along is are was were be left right top bottom upper lower "
    "center that which while but here there visible house structure as over under between behind above below"
)


@functools.lru_cache(maxsize=4096)
def class_names(names: tuple[str, ...], synonyms: Synonyms = SHIPPED) -> ClassNames:
    """The vocabulary of these names; vocabularies are kept, because the examples of a dataset share one."""
    return ClassNames(names, synonyms)


@functools.cache
def known_names() -> ClassNames:
    """Names that are read as units in answers to any dataset: BigEarthNet's contain commas, xBD's a negation."""
    return ClassNames((*BIGEARTHNET, *XBD), None)
