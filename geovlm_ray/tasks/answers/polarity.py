"""Yes or no in answers."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.hedges import is_unsure
from geovlm_ray.tasks.answers.phrases import SKIPPED, sentences
from geovlm_ray.tasks.answers.restatements import POLAR_STARTS, QUESTION_STARTS, asked_sentence, restated
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, word_set

TRUE_WORDS = word_set("yes yeah yep yup true correct affirmative y")
FALSE_WORDS = word_set("no nope nah false incorrect negative n")

_ALWAYS_TRUE = word_set("yes yeah true")
_ALWAYS_FALSE = word_set("false nope")
_UNDECIDED = (["n", "a"], ["y", "n"], ["n", "y"])
_MAX_UNDECIDED = 8
_OPEN_QUESTIONS = word_set("how many what which where who why or")
_ALONE_BEFORE = DELIMITERS | {"and", "or", "but", "yes", "because", "since", "as", "thank"}
_ASSENTS = word_set(
    "absolutely indeed certainly sure definitely surely undoubtedly exactly really quite totally course doubt so "
    "all clearly obviously"
)
"""Words of answers such as "certainly", "of course", "I think so" and "not really"."""


def polarity(words: Sequence[str], question: Sequence[str] = ()) -> bool | None:
    """Whether the tokens of an answer say yes; None if they say neither, or both.

    A sentence without "yes" or "no" ("There are no ships.") says yes if it repeats the tokens of the question without
    negation.
    """
    yes, no = _says_yes(words), _says_no(words)
    if yes or no:
        return None if yes == no or _is_undecided(words) else yes
    assents = not _ASSENTS.isdisjoint(words)
    parts = sentences(_without_doubt(words) if assents else words)
    if is_unsure(words) or (parts and parts[0][0] in QUESTION_STARTS):
        return None
    if assents and (assented := _assented(parts[0] if parts else [])) is not None:
        return assented
    return restated(parts[0], question) if parts else None


def _without_doubt(words: Sequence[str]) -> list[str]:
    """Tokens without "no doubt" and "without a doubt"; "I doubt" becomes a negation."""
    found: list[str] = []
    for word in words:
        if word != "doubt":
            found.append(word)
            continue
        while found and found[-1] in ("a", "any"):
            found.pop()
        if found and found[-1] in NEGATORS:
            found[-1] = "certainly"
        else:
            found.append("not")
    return found


def _assented(sentence: Sequence[str]) -> bool | None:
    """What a sentence says that consists of an assent ("certainly", "I think so") and perhaps a negation."""
    rest = [word for word in sentence if word not in SKIPPED and word != "do"]
    if not _ASSENTS.isdisjoint(sentence) and (_ASSENTS | {"not"}).issuperset(rest):
        return "not" not in rest
    return None


def _is_undecided(words: Sequence[str]) -> bool:
    """Whether an answer is "N/A" or "Y/N"."""
    return len(words) < _MAX_UNDECIDED and [word for word in words if word not in DELIMITERS] in _UNDECIDED


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
        if word not in FALSE_WORDS or (i and word in ("n", "negative")):
            return False
        return word in _ALWAYS_FALSE or following in _ALONE_BEFORE or (i == 0 and _opens_clause(following))

    return any(denies(i, word) for i, word in enumerate(words))


def _opens_clause(word: str) -> bool:
    """Whether a word begins a clause, so that a "no" before it is an answer ("No there is none")."""
    return word in ("there", "it", "this", "the", "i", "they", "these", "not")


def truth_polarity(words: Sequence[str], question: Sequence[str]) -> bool | None:
    """Whether a truth is yes, alone or with an explanation ("No, there is no water."); None for other truths."""
    start = next((i for i, word in enumerate(words) if word not in DELIMITERS), 0)
    words = words[start:]
    first = words[0] if words else ""
    if first not in TRUE_WORDS and first not in FALSE_WORDS:
        return None
    is_alone = DELIMITERS.issuperset(words[1:])
    explains = first in ("yes", "no") and words[1:2] != [] and words[1] in DELIMITERS and _asks_only_polarity(question)
    return first in TRUE_WORDS if is_alone or explains else None


def _asks_only_polarity(question: Sequence[str]) -> bool:
    asked = asked_sentence(question)
    return bool(asked) and asked[0] in POLAR_STARTS and _OPEN_QUESTIONS.isdisjoint(question)
