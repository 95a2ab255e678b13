"""Yes or no in answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.phrases import OPPOSITES, SKIPPED, phrase_words, sentences
from geovlm_ray.tasks.answers.positions import comparison
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, word_set

TRUE_WORDS = word_set("yes yeah yep yup true correct affirmative y")
FALSE_WORDS = word_set("no nope nah false incorrect n")

_ALWAYS_TRUE = word_set("yes yeah true")
_ALWAYS_FALSE = word_set("false nope")
_ABSENT = word_set("absent none unchanged")
_PRESENT = word_set("present visible exist")
_PRESENCE = _PRESENT | _ABSENT | NEGATORS
_UNSURE = word_set("maybe unsure unclear uncertain unknown unable perhaps possibly difficult impossible hard")
_CANNOT = word_set("cannot sure know determine tell certain confirm")
_QUESTION_STARTS = word_set("is are does do did can could has have was were what how which where")
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
    unsure = not _UNSURE.isdisjoint(words) or (not _CANNOT.isdisjoint(words) and not NEGATORS.isdisjoint(words))
    if not parts or unsure or parts[0][0] in _QUESTION_STARTS:
        return None
    return _stated(parts[0], question)


def _stated(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What a sentence without "yes" or "no" says of a question."""
    negated = not NEGATORS.isdisjoint(sentence) or not _ABSENT.isdisjoint(sentence)
    facts = [word for word in sentence if word not in SKIPPED]
    if len(sentence) == 1:
        return sentence[0] in _PRESENT if sentence[0] in _PRESENT | _ABSENT else None
    if facts and _PRESENCE.issuperset(facts):
        return not negated
    compared = _compares(sentence, question)
    if compared is not None:
        return compared != negated
    stated, asked = set(phrase_words(sentence)), set(phrase_words(question))
    if not asked or len(asked & stated) < _COVERED * len(asked):
        return False if negated and sentence[0] in ("there", "no") else None
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
    def affirms(i: int, word: str) -> bool:
        before = words[i - 1] if i else COMMA
        return before not in NEGATORS and (word in _ALWAYS_TRUE or before == "is" or before in DELIMITERS)

    return any(word in TRUE_WORDS and affirms(i, word) for i, word in enumerate(words))


def _says_no(words: Sequence[str]) -> bool:
    def denies(i: int, word: str) -> bool:
        following = words[i + 1] if i + 1 < len(words) else COMMA
        if word in NEGATORS and following in ("true", "correct"):
            return True
        if word not in FALSE_WORDS or (i and word == "n"):
            return False
        return word in _ALWAYS_FALSE or following in _ALONE_BEFORE or (i == 0 and _opens_clause(following))

    return any(denies(i, word) for i, word in enumerate(words))


def _opens_clause(word: str) -> bool:
    """Whether a word begins a clause, so that a "no" before it is an answer ("No there is none")."""
    return word in ("there", "it", "this", "the", "i", "they", "these", "not")


def is_polar(words: Collection[str]) -> bool:
    """Whether the words of a truth are just yes or no."""
    return len(words) == 1 and not (TRUE_WORDS | FALSE_WORDS).isdisjoint(words)
