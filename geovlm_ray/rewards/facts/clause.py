"""Which object of a clause a fact describes, by the order of the words."""

from __future__ import annotations

from geovlm_ray.rewards.facts.terms import Term

_PHRASE_ENDS = frozenset(
    {"of", "on", "in", "at", "near", "beside", "by", "with", "to", "from", "between", "next", "around", "along", "into"}
    | {"among", "behind", "is", "are", "was", "were", "has", "have", "onto", "over", "under", "across", "through"}
    | {"that", "which", "where", "surround", "surrounds", "surrounded", "above", "below"}
)
_SIDES = frozenset({"side", "part", "edge", "bank", "half", "corner", "end", "hand", "portion", "of", "the", "a", "to"})
_RELATIVE = frozenset({"above", "below", "beneath", "underneath", "of", "behind", "in front of"})
_IMAGE = frozenset({"image", "picture", "photo", "scene", "frame", "region", "view"})
"""What "the left of the image" is relative to, which is no object."""
_DENIES_NEXT = frozenset(
    {"no", "not", "without", "zero", "none", "neither", "nor", "never", "cannot", "lack", "lacks", "lacking"}
    | {"absence of", "free of", "lack of", "devoid of"}
)
_DETERMINERS = frozenset({"the", "a", "its", "their", "with"})
"""Words before "surrounding" as an adjective."""


class Clause:
    """The terms of a clause; objects are given by the index of their term, or -1."""

    def __init__(self, terms: list[Term]) -> None:
        self.terms = terms
        self._phrase: list[int] = []
        self._before: list[int] = []
        self._subject: list[int] = []
        self._numbers: dict[int, str] = {}
        phrase, before, subject = 0, -1, -1
        for i, term in enumerate(terms):
            if term.text in _PHRASE_ENDS:
                phrase += 1
            self._subject.append(subject)
            if term.objects:
                before = i
                if subject < 0 and (i == 0 or terms[i - 1].text != "of"):
                    subject = i
            self._phrase.append(phrase)
            self._before.append(before)
        self._after = [-1] * (len(terms) + 1)
        after = -1
        for i in range(len(terms) - 1, -1, -1):
            if terms[i].objects:
                after = i
            self._after[i] = after

    def name(self, i: int) -> str:
        """Name of the object at an index, the noun if it is none of the vocabulary, "" for -1."""
        term = self.terms[i]
        return "" if i < 0 else term.objects[0] if term.objects else term.noun

    def described(self, i: int) -> int:
        """What an adjective or a number describes.

        The next object of its phrase, else the preceding one of its phrase, else the noun that follows ("three rows"),
        else the subject ("the roof of the house is blue"), else the next object.
        """
        for near in (self._after[i], self._before[i]):
            if near >= 0 and self._phrase[near] == self._phrase[i]:
                return near
        for j in range(i + 1, min(i + 4, len(self.terms))):
            following = self.terms[j]
            if self._phrase[j] != self._phrase[i]:
                break
            if not following.facts and following.text.isalpha():
                return j
            if not following.attributes:
                break
        return _first(self._subject[i], self._before[i], self._after[i])

    def number(self, i: int) -> str:
        """The number in the phrase of an index, or ""."""
        if not self._numbers:
            self._numbers = {self._phrase[j]: v for j, t in enumerate(self.terms) for k, v in t.facts if k == "number"}
        return self._numbers.get(self._phrase[i], "")

    def denied(self, i: int) -> int:
        """The object that a negation denies: "no ships", "the field is not planted", "the lot is empty"."""
        after, before = self._after[i], self._before[i]
        return _first(after, before) if self.terms[i].text in _DENIES_NEXT else _first(before, after)

    def surrounded(self, i: int) -> tuple[int, int]:
        """What is around, and what it surrounds: "trees surround the lake", "the lake is surrounded by trees"."""
        before, after = self._before[i], self._after[i]
        if self.terms[i - 1].text in _DETERMINERS:
            return -1, -1
        following = [term.text for term in self.terms[i + 1 : i + 6]]
        is_passive = following[:1] == ["by"] or (
            self.terms[i].text.endswith("ed")
            and ("by" in following or "with" in following or self.terms[i - 1].text in ("is", "are", "was", "were"))
        )
        return (after, before) if is_passive else (before, after)

    def placed(self, i: int) -> tuple[int, int]:
        """The object at the place that a direction names, and the object that the place is relative to."""
        before, j = self._before[i], i + 1
        relative = self.terms[i].text in _RELATIVE
        while j < len(self.terms) and self.terms[j].text in _SIDES:
            relative = relative or self.terms[j].text in _RELATIVE
            j += 1
        ground = self._after[j]
        if relative and ground >= 0 and self._phrase[ground] == self._phrase[j] and self.terms[j].text not in _IMAGE:
            return _first(before, self._after[ground + 1]), ground
        return _first(before, self._after[i]), -1


def _first(*indices: int) -> int:
    """The first index that is not -1, else -1."""
    return next((i for i in indices if i >= 0), -1)
