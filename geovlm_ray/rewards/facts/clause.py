"""Which object of a clause a fact describes, by the order of the words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from geovlm_ray.rewards.facts.terms import Term

_PHRASE_ENDS = frozenset(
    {"of", "on", "in", "at", "near", "beside", "by", "with", "to", "from", "between", "next", "around", "along", "into"}
    | {"among", "behind", "is", "are", "was", "were", "has", "have", "onto", "over", "under", "across", "through"}
    | {"that", "which", "where", "surround", "surrounds", "surrounded", "above", "below"}
)
_SIDES = frozenset({"side", "part", "edge", "bank", "half", "corner", "end", "hand", "portion", "of", "the", "a", "to"})
_RELATIVE = frozenset({"above", "below", "beneath", "underneath", "of"})
_DENIES_NEXT = frozenset(
    {"no", "not", "without", "zero", "none", "neither", "nor", "never", "cannot", "lack", "lacks", "lacking"}
    | {"absence of", "free of", "lack of", "devoid of"}
)


class Named(NamedTuple):
    """An object of a clause: the index of its term and its name."""

    at: int
    name: str


NOTHING = Named(-1, "")


class Clause:
    """The terms of a clause, and for each index the nearest object before and after it."""

    def __init__(self, terms: list[Term]) -> None:
        self.terms = terms
        self._phrase: list[int] = []
        self._subject: list[Named | None] = []
        phrase, subject = 0, None
        for i, term in enumerate(terms):
            self._subject.append(subject)
            phrase += term.text in _PHRASE_ENDS
            self._phrase.append(phrase)
            names = term.of_kind("object")
            if names and subject is None and (i == 0 or terms[i - 1].text != "of"):
                subject = Named(i, names[0])
        self._before = self._nearest(range(len(terms)))
        self._after = self._nearest(range(len(terms) - 1, -1, -1))

    def _nearest(self, order: Iterable[int]) -> list[Named | None]:
        """The last object met in an order of the indices, at each index."""
        found: list[Named | None] = [None] * (len(self.terms) + 1)
        nearest = None
        for i in order:
            names = self.terms[i].of_kind("object")
            nearest = Named(i, names[0]) if names else nearest
            found[i] = nearest
        return found

    def described(self, i: int) -> Named:
        """What an adjective or a number describes.

        The next object of its phrase, else the preceding one of its phrase, else the noun that follows ("three rows"),
        else the subject ("the roof of the house is blue"), else the next object.
        """
        for near in (self._after[i], self._before[i]):
            if near and self._phrase[near.at] == self._phrase[i]:
                return near
        if i + 1 < len(self.terms) and self._phrase[i + 1] == self._phrase[i]:
            following = self.terms[i + 1]
            if not following.facts and following.text.isalpha():
                return Named(i + 1, following.text.removesuffix("s"))
        return self._subject[i] or self._before[i] or self._after[i] or NOTHING

    def denied(self, i: int) -> Named:
        """The object that a negation denies: "no ships", "the field is not planted", "the lot is empty"."""
        after, before = self._after[i], self._before[i]
        return ((after or before) if self.terms[i].text in _DENIES_NEXT else (before or after)) or NOTHING

    def placed(self, i: int) -> tuple[Named, Named]:
        """The object at the place that a direction names, and the object that the place is relative to."""
        before, j = self._before[i], i + 1
        relative = self.terms[i].text in _RELATIVE
        while j < len(self.terms) and self.terms[j].text in _SIDES:
            relative |= self.terms[j].text in _RELATIVE
            j += 1
        ground = self._after[j] if relative else None
        if ground and ground.at == j:
            return before or self._after[j + 1] or NOTHING, ground
        return before or self._after[i] or NOTHING, NOTHING
