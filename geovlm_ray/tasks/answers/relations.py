"""Where one object is relative to another: "the ship is left of the pier" is "the pier is right of the ship"."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from geovlm_ray.tasks.answers.phrases import affirmed, phrase_words, sentences
from geovlm_ray.tasks.answers.positions import (
    POSITION_WORDS,
    is_side,
    located,
    mirrored,
    orientation,
    position_agreement,
    positions,
    whole_position,
)
from geovlm_ray.tasks.answers.words import RANGE, word_set

_ASKED = (("relative", "to"), ("respect", "to"), ("relation", "to"), ("compared", "to"))
_ADDITIONS = word_set("because since while whereas with where which as")
"""Words that begin what a sentence adds after it has named a side."""
_ASKING = word_set("where in which what direction position location located side")


class Relation(NamedTuple):
    """Content words of the subject and of the reference, and the sides of the reference on which the subject is."""

    subject: frozenset[str]
    sides: frozenset[str]
    reference: frozenset[str]

    def sides_for(self, other: Relation) -> frozenset[str] | None:
        """The sides for subject and reference of ``other``: mirrored if they are exchanged; None for other objects.

        A missing subject is the one that fits the reference.
        """
        if self._is_about(other.subject, other.reference):
            return self.sides
        if self._is_about(other.reference, other.subject):
            return mirrored(self.sides)
        return None

    def _is_about(self, subject: frozenset[str], reference: frozenset[str]) -> bool:
        return bool(self.reference & reference) and (not self.subject or bool(self.subject & subject))


def relation(words: Sequence[str]) -> Relation | None:
    """The relation that tokens state: "A is left of B", or "left of B" without a subject; None for other texts."""
    for i, word in enumerate(words):
        if not is_side(word):
            continue
        end = next((k for k in range(i + 1, len(words)) if words[k] not in POSITION_WORDS or words[k] == "of"), None)
        if end is None or words[end] not in ("of", "from"):
            continue
        reference = _objects(words[end + 1 :])
        if reference:
            return Relation(_objects(words[:i]), positions(words[i:end]), reference)
    return None


def asked_relation(question: Sequence[str]) -> Relation | None:
    """Subject and reference of a question: "Where is A relative to B?"; None for other questions."""
    pairs = list(itertools.pairwise(question))
    at = next((i for i, pair in enumerate(pairs) if pair in _ASKED), None)
    if at is None:
        at = next((i for i, word in enumerate(question) if word == "from" and "direction" in question[:i]), None)
    if at is None:
        return None
    subject, reference = _objects(question[:at]), _objects(question[at + 1 :])
    return Relation(subject - reference, frozenset(), reference - subject) if subject and reference else None


class Place(NamedTuple):
    """A truth that is a position in the image, or on a side of a reference, or an orientation ("north-south").

    ``ends`` are those of an orientation, in the order in which "from ... to" names them, else in any.
    """

    sides: frozenset[str]
    relation: Relation | None
    is_position: bool
    ends: tuple[frozenset[str], ...] | None = None
    is_ordered: bool = False

    @classmethod
    def of(cls, truth: Sequence[str], question: Sequence[str]) -> Place | None:
        """The place that the tokens of a truth state; None for other truths."""
        ends = orientation(truth)
        if sides := whole_position([word for word in truth if word != "from"] if ends else truth):
            return cls(sides, asked_relation(question), True, ends, RANGE in truth)
        stated = relation(truth)
        return cls(stated.sides, stated, False) if stated else None

    def agreement(self, words: Sequence[str]) -> float | None:
        """Agreement of the place that the tokens of an answer state, in [0, 1]; None if they state none."""
        said = affirmed(words)
        if self.ends:
            ends = orientation(said)
            same = ends == self.ends if self.is_ordered else ends and {*ends} == {*self.ends}
            return float(bool(same))
        stated = relation(said) if self.relation else None
        sides = stated.sides_for(self.relation) if stated and self.relation else None
        if sides is None:
            sides = _first_located(said) if self.is_position else whole_position(words)
        return None if sides is None else position_agreement(sides, self.sides)


def _first_located(words: Sequence[str]) -> frozenset[str]:
    """The sides that the first sentence with a side names, without what it adds ("..., with a road on the left")."""
    for sentence in sentences(words):
        first = next((i for i, word in enumerate(sentence) if is_side(word)), None)
        if first is not None:
            end = next((i for i in range(first, len(sentence)) if sentence[i] in _ADDITIONS), None)
            if sides := located(sentence[:end]):
                return sides
    return frozenset()


def _objects(words: Sequence[str]) -> frozenset[str]:
    named = [w for w in words if w not in POSITION_WORDS and w not in _ASKING and not is_side(w)]
    return frozenset(phrase_words(named))
