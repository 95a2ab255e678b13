"""Yes or no in answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from geovlm_ray.tasks.class_names import NEGATORS
from geovlm_ray.tasks.phrases import OPPOSITES, phrase_words, sentences, stem
from geovlm_ray.tasks.positions import comparison
from geovlm_ray.tasks.words import DELIMITERS

TRUE_WORDS = frozenset("yes yeah yep yup true correct affirmative y".split())
FALSE_WORDS = frozenset("no nope nah false incorrect n".split())

_ABSENT = frozenset("absent none nothing unchanged".split())
_PRESENT = frozenset("present visible exist".split())
_UNSURE = frozenset("maybe unsure unclear uncertain unknown unable perhaps possibly difficult impossible hard".split())
_CANNOT = frozenset("cannot sure know determine tell certain confirm".split())
_QUESTION_STARTS = frozenset("is are does do did can could has have was were what how which where".split())
_ALONE_BEFORE = DELIMITERS | {"and", "or", "but", "yes", "because", "since", "as", "thank"}
_COVERED = 0.5
"""Share of the content words of a question that a sentence repeats if it answers it without "yes" or "no"."""


def polarity(words: Sequence[str], question: Sequence[str] = ()) -> bool | None:
    """Whether the tokens of an answer say yes; None if they say neither, or both.

    A sentence without "yes" or "no" ("There are no ships.") says yes if it repeats the tokens of the question without
    negation.
    """
    yes, no = _says_yes(words), _says_no(words)
    if yes or no:
        return None if yes and no else yes
    parts = sentences(words)
    if not parts:
        return None
    first = parts[0]
    if not _UNSURE.isdisjoint(words) or (not _CANNOT.isdisjoint(words) and not NEGATORS.isdisjoint(words)):
        return None
    negated = not NEGATORS.isdisjoint(first) or not _ABSENT.isdisjoint(first)
    if len(first) == 1:
        return False if first[0] in _ABSENT else True if first[0] in _PRESENT else None
    if first[0] in _QUESTION_STARTS:
        return None
    if len(first) == 2 and negated and first[1] in _PRESENT:
        return False
    compared = _compares(first, question)
    if compared is not None:
        return compared != negated
    stated, asked = set(phrase_words(first)), set(phrase_words(question))
    if not asked or len(asked & stated) < _COVERED * len(asked):
        return False if negated and first[0] in ("there", "no") else None
    opposite = any(OPPOSITES.get(word) in stated and word not in stated for word in asked)
    return negated == opposite


def _compares(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """Whether a comparison is the one of the question; None if it is neither that nor its converse."""
    stated, asked = comparison(sentence), comparison(question)
    if stated is None or asked is None or stated[0] != asked[0]:
        return None
    same = len({*stated[1]} & {*asked[1]}) + len({*stated[2]} & {*asked[2]})
    converse = len({*stated[1]} & {*asked[2]}) + len({*stated[2]} & {*asked[1]})
    return None if same == converse else same > converse


def _says_yes(words: Sequence[str]) -> bool:
    for i, word in enumerate(words):
        if word in TRUE_WORDS and (i == 0 or word in ("yes", "yeah", "true") or words[i - 1] in ("is", *DELIMITERS)):
            if not (i and words[i - 1] in NEGATORS):
                return True
    return False


def _says_no(words: Sequence[str]) -> bool:
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else "."
        if word in FALSE_WORDS and (i == 0 or word != "n"):
            if following in _ALONE_BEFORE or (i == 0 and _opens_clause(following)) or word in ("false", "nope"):
                return True
        if word in NEGATORS and following in ("true", "correct") and stem(following) != word:
            return True
    return False


def _opens_clause(word: str) -> bool:
    """Whether a word begins a clause, so that a "no" before it is an answer ("No there is none")."""
    return word in ("there", "it", "this", "the", "i", "they", "these", "not")


def is_polar(words: Collection[str]) -> bool:
    """Whether the words of a truth are just yes or no."""
    return len(words) == 1 and not (TRUE_WORDS | FALSE_WORDS).isdisjoint(words)
