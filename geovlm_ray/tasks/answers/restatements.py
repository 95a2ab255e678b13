"""Yes or no in sentences without those words: "There are no ships.", "The roof is blue.", "There are 15 ships."."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from geovlm_ray.tasks.answers.class_names import NEGATORS, other_names
from geovlm_ray.tasks.answers.measures import Quantity, quantities
from geovlm_ray.tasks.answers.phrases import (
    CUTS,
    GENERAL_NOUNS,
    MODIFIERS,
    OPPOSITES,
    SKIPPED,
    STEMS,
    VERBS,
    phrase_words,
    sentences,
)
from geovlm_ray.tasks.answers.positions import (
    POSITION_WORDS,
    comparison,
    is_side,
    one_sided_comparison,
    positions,
    says_equal,
)
from geovlm_ray.tasks.answers.quantities import names_of, stated_quantity
from geovlm_ray.tasks.answers.words import DELIMITERS, LINE, SENTENCE, word_set

POLAR_STARTS = word_set("is are does do did can could has have was were")
"""First words of questions that yes or no answers."""
QUESTION_STARTS = POLAR_STARTS | word_set("what how which where")
"""First words of questions."""
_ABSENT = word_set("absent unchanged free devoid missing")
_PRESENCE = word_set("present visible exist") | _ABSENT | NEGATORS
_NEGATIONS = (NEGATORS | _ABSENT) - {"rather", "instead", "unlike"}
_AUXILIARIES = word_set("is are was were do does did has have had can could will would")
_ELLIPTICAL = _AUXILIARIES | word_set("there here it they this these that those i you we he she not cannot 1 any")
_CHANGE = word_set("change changed changing difference differ different differently altered alteration dissimilar")
_SAME = word_set("same identical alike unchanged unaltered indistinguishable")
_ABOUT_IMAGES = word_set("image picture photo date time scene")
_ASKS_EXISTENCE = word_set("there see contain show have include feature depict visible present exist find identify")
_UNSPECIFIC = word_set("any some you do does did could lot sign currently now such over across crossing")
_VAGUE = word_set(
    "any some you do does did could area region zone site place object structure type class surface ground"
)
_NO_PREDICATES = SKIPPED | MODIFIERS | NEGATORS | VERBS | _VAGUE
_NOT_ASKED = frozenset(map(STEMS.__getitem__, NEGATORS | _ABSENT | {"yes", "or"}))
_COPULAS = word_set("is are was were seem appear look remain")
_VERTICAL = {"above": "top", "below": "bottom", "beneath": "bottom", "under": "bottom"}
_IMPLIED_BY = {
    STEMS[word]: frozenset(map(STEMS.__getitem__, by.split()))
    for word, by in {
        "paved": "asphalt concrete tarmac cement",
        "moving": "driving sailing traveling taxiing flying flowing underway",
        "stationary": "parked docked moored anchored berthed stopped",
        "flooded": "inundated submerged underwater",
        "damaged": "destroyed collapsed ruined burned",
        "changed": "increased decreased built demolished appeared disappeared expanded shrunk converted added removed",
        "cloudy": "overcast cloud",
        "vehicle": "car truck bus van",
        "water": "river lake sea ocean pond",
        "vegetation": "tree forest grass",
        "building": "house",
    }.items()
}
"""Stems that imply the stem of another word of a question."""


def restated(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What a sentence without "yes" or "no" says of a question; None if it says something else."""
    negated = _is_negative(sentence) != _asks_for_absence(question)
    if len(sentence) == 1:
        return not negated if sentence[0] in _PRESENCE else None
    asked = asked_sentence(question)
    for reading in (_of_change, _of_comparison, _of_count):
        stated = reading(sentence, asked)
        if stated is not None:
            return stated
    facts = [word for word in sentence if word not in SKIPPED and word != "any"]
    if (facts and _PRESENCE.issuperset(facts)) or _is_elliptical(sentence):
        return not negated
    return _of_words(sentence, asked, negated)


def _is_elliptical(sentence: Sequence[str]) -> bool:
    """Whether a sentence is a pronoun and an auxiliary: "they are not", "there is"."""
    return _ELLIPTICAL.issuperset(sentence) and not _AUXILIARIES.isdisjoint(sentence)


def _is_negative(words: Sequence[str]) -> bool:
    """Whether tokens state an absence; "not free of ships" does not."""
    return NEGATORS.isdisjoint(words) != _ABSENT.isdisjoint(words)


def asked_sentence(question: Sequence[str]) -> Sequence[str]:
    """The sentence of a question that asks, without instructions; the question if none starts as a question does."""
    if SENTENCE not in question and LINE not in question:
        return question
    return next((part for part in sentences(question) if part[0] in QUESTION_STARTS), question)


def _asks_for_absence(question: Sequence[str]) -> bool:
    """Whether "yes" to a question states an absence ("Is it free of ships?"); "isn't it" and "yes or no" do not."""
    if _NEGATIONS.isdisjoint(question):
        return False
    asked = asked_sentence(question)
    edges = DELIMITERS | {"or", "yes"}
    return _is_negative(
        [
            word
            for i, word in enumerate(asked)
            if word in _ABSENT
            or (word in _NEGATIONS and i > 1 and asked[i - 1] not in edges and edges.isdisjoint(asked[i + 1 : i + 2]))
        ]
    )


def _of_change(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What "identical", "different" and the like say of a question with one of these words."""
    asks_same, asks_change = not _SAME.isdisjoint(question), not _CHANGE.isdisjoint(question)
    says_same, says_change = not _SAME.isdisjoint(sentence), not _CHANGE.isdisjoint(sentence)
    if not (says_same or says_change) or not NEGATORS.isdisjoint(question[2:]):
        return None
    changed = says_same is not NEGATORS.isdisjoint(sentence)
    if asks_same or asks_change:
        return changed is not asks_same
    is_event = not _IMPLIED_BY[STEMS["changed"]].isdisjoint(phrase_words(question))
    return False if is_event and not changed else None


def _of_comparison(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What a comparison or two counts say of a question that compares; None for other sentences."""
    asked, stated = comparison(question), comparison(sentence)
    denied = not NEGATORS.isdisjoint(sentence)
    if asked is None:
        return _of_equality(sentence, question, denied) if says_equal(question) else None
    if stated is not None:
        same, converse = _common(asked, stated), _common(asked, (stated[0], stated[2], stated[1]))
        return None if stated[0] != asked[0] or same == converse else (same > converse) != denied
    if says_equal(sentence):
        return None if denied else False
    greater, smaller = map(frozenset, asked[1:])
    counts = _counts(sentence, greater | smaller)
    if len(counts) == 2:
        more, fewer = ([counts[noun] for noun in side if noun in counts] for side in (greater, smaller))
        return more > fewer if more and fewer else None
    one = one_sided_comparison(sentence)
    if denied or one is None or one[0] != asked[0] or greater.isdisjoint(one[2]) is smaller.isdisjoint(one[2]):
        return None
    return smaller.isdisjoint(one[2]) is (one[1] > 0)


def _of_equality(sentence: Sequence[str], question: Sequence[str], denied: bool) -> bool | None:
    """What a comparison or two counts say of a question whether two sides are equal."""
    if comparison(sentence) is not None:
        return None if denied else False
    if says_equal(sentence):
        return not denied
    counts = _counts(sentence, frozenset(phrase_words(question)))
    return len(set(counts.values())) == 1 if len(counts) == 2 else None


_Comparison = tuple[str, tuple[str, ...], tuple[str, ...]]


def _common(a: _Comparison, b: _Comparison) -> int:
    """Words that two comparisons have in common on the same sides."""
    return len({*a[1]} & {*b[1]}) + len({*a[2]} & {*b[2]})


def _counts(sentence: Sequence[str], nouns: Collection[str]) -> dict[str, float]:
    """The counts of a sentence by the stem of the noun that each counts, of these nouns."""
    found = [(q, [STEMS[word] for word in q.noun if STEMS[word] in nouns]) for q in quantities(sentence)]
    return {stems[0]: q.low for q, stems in found if stems and q.low == q.high}


def _of_count(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What a count says of a question about a number of objects ("Are there more than 5 ships?")."""
    asked = [q for q in quantities(question) if _ABOUT_IMAGES.isdisjoint(q.noun)]
    if len(asked) != 1:
        return None
    truth = asked[0]
    stated = stated_quantity(sentence, names_of(truth.noun))
    if stated is None or (stated.noun and truth.noun and names_of(truth.noun).isdisjoint(stated.noun)):
        return None
    return _contains(truth, stated)


def _contains(asked: Quantity, stated: Quantity) -> bool | None:
    """Whether a quantity lies in the range of another one; None if it may or may not."""
    if asked.low <= stated.low and stated.high <= asked.high:
        return True
    return False if stated.high < asked.low or asked.high < stated.low else None


class _Overlap(NamedTuple):
    """The content words that a question asks for; those of them that a sentence lacks, and whose opposite it states.

    ``others`` are the content words of the sentence that the question does not have.
    """

    asked: list[str]
    missing: list[str]
    opposed: list[str]
    others: list[str]

    @classmethod
    def of(cls, sentence: Sequence[str], question: Sequence[str]) -> _Overlap:
        asked = _content(question)
        stems, asked_stems = frozenset(phrase_words(sentence)), {STEMS[word] for word in asked}
        unstated = [word for word in asked if not _is_stated(word, sentence, stems)]
        opposed = [word for word in unstated if not stems.isdisjoint(_opposites(STEMS[word]))]
        others = [word for word in sentence if word not in _NO_PREDICATES and STEMS[word] not in asked_stems]
        return cls(asked, [word for word in unstated if word not in opposed], opposed, others)


def _of_words(sentence: Sequence[str], question: Sequence[str], negated: bool) -> bool | None:
    """What a sentence says that repeats the content words of a question, with or without others in their place."""
    overlap = _Overlap.of(sentence, question)
    if not overlap.asked:
        return not negated if _is_negative(sentence) and sentence[0] in ("there", "no") else None
    if not _ASKS_EXISTENCE.isdisjoint(question[1:]):
        return _of_existence(overlap, sentence, question, negated)
    return _of_predicate(overlap, sentence, question, negated)


def _of_existence(overlap: _Overlap, sentence: Sequence[str], question: Sequence[str], negated: bool) -> bool | None:
    """What a sentence says of a question whether something is there: it must name the object."""
    existing, missing = _existing(question), overlap.missing
    if not other_names(" ".join(existing)).isdisjoint(sentence):
        missing = [word for word in missing if word not in existing]
    if not set(missing).isdisjoint(existing):
        return None
    if negated:
        return None if overlap.opposed else False
    if overlap.opposed or _is_elsewhere(sentence, question):
        return False
    return None if missing and overlap.others else True


def _of_predicate(overlap: _Overlap, sentence: Sequence[str], question: Sequence[str], negated: bool) -> bool | None:
    """What a sentence says of a question about a property: another property in the place of the asked one is a no."""
    last = overlap.asked[-1]
    missing = [word for word in overlap.missing if word == last or not (STEMS[word] in MODIFIERS or is_side(word))]
    elsewhere = _asks_place(question) and _is_elsewhere(sentence, question)
    replaced = elsewhere or (last in missing and not _COPULAS.isdisjoint(sentence))
    if not replaced and not missing:
        return negated == bool(overlap.opposed)
    if len(missing) == len(overlap.asked) and not _has_general_subject(sentence):
        return None
    if overlap.others or elsewhere:
        return False if replaced and not negated else None
    is_mostly_stated = last not in missing and 2 * len(missing) <= len(overlap.asked)
    return negated == bool(overlap.opposed) if is_mostly_stated else False if negated else None


def _content(words: Sequence[str]) -> list[str]:
    """Content words of a question, without general nouns if it has others."""
    kept = [w for w in words if w not in SKIPPED and w not in _UNSPECIFIC and STEMS[w] not in _NOT_ASKED]
    return [word for word in kept if STEMS[word] not in GENERAL_NOUNS] or kept


def _existing(question: Sequence[str]) -> list[str]:
    """Content words of the object of a question that asks whether something is there, without its place."""
    ends = (i for i, word in enumerate(question) if word in CUTS or is_side(word))
    return next((found for end in ends if (found := _content(question[:end]))), _content(question))


def _is_stated(word: str, sentence: Sequence[str], stems: frozenset[str]) -> bool:
    """Whether a sentence has a word of the question, a synonym, or a word that implies it."""
    stem = STEMS[word]
    implied = _IMPLIED_BY.get(stem, frozenset())
    return stem in stems or not implied.isdisjoint(stems) or not other_names(word).isdisjoint(sentence)


def _opposites(stem: str) -> tuple[str | None, str, str]:
    """Stems of the opposite meaning: of a pair such as left and right, and with or without "un"."""
    return OPPOSITES.get(stem), f"un{stem}", stem.removeprefix("un") if len(stem) > 6 else f"un{stem}"


def _is_elsewhere(sentence: Sequence[str], question: Sequence[str]) -> bool:
    """Whether a sentence names a side of the same object other than the question."""
    stated, asked = _sides(sentence), _sides(question)
    return bool(stated and asked) and stated.isdisjoint(asked)


def _asks_place(question: Sequence[str]) -> bool:
    """Whether a question ends with a side: "Is the ship in the center of the image?"."""
    ends = (word for word in reversed(question) if is_side(word) or not (word in SKIPPED or word in POSITION_WORDS))
    return is_side(next(ends, ""))


def _sides(words: Sequence[str]) -> frozenset[str]:
    return positions([_VERTICAL.get(word, word) for word in words])


def _has_general_subject(sentence: Sequence[str]) -> bool:
    """Whether the subject of a sentence is a pronoun or a general noun: "it is", "the area is"."""
    verb = next((i for i, word in enumerate(sentence) if word in VERBS), 0)
    return all(word in SKIPPED or STEMS[word] in GENERAL_NOUNS for word in sentence[:verb])
