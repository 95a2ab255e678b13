"""Yes or no in answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.hedges import is_unsure
from geovlm_ray.tasks.answers.phrases import OPPOSITES, SKIPPED, STEMS, phrase_words, sentences
from geovlm_ray.tasks.answers.positions import comparison
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, LINE, SENTENCE, word_set

TRUE_WORDS = word_set("yes yeah yep yup true correct affirmative y")
FALSE_WORDS = word_set("no nope nah false incorrect n")

_ALWAYS_TRUE = word_set("yes yeah true")
_ALWAYS_FALSE = word_set("false nope")
_ABSENT = word_set("absent unchanged free devoid missing")
_PRESENT = word_set("present visible exist")
_PRESENCE = _PRESENT | _ABSENT | NEGATORS
_QUESTION_STARTS = word_set("is are does do did can could has have was were what how which where")
_ALONE_BEFORE = DELIMITERS | {"and", "or", "but", "yes", "because", "since", "as", "thank"}
_ASSENTS = word_set(
    "absolutely indeed certainly sure definitely surely undoubtedly exactly really quite totally course doubt so "
    "all clearly obviously"
)
"""Words of answers such as "certainly", "of course", "I think so" and "not really"."""
_NOT_ASKED = frozenset(map(STEMS.__getitem__, NEGATORS | _ABSENT | {"yes", "or"}))
_NEGATIONS = (NEGATORS | _ABSENT) - {"rather", "instead", "unlike"}
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
    assents = not _ASSENTS.isdisjoint(words)
    parts = sentences(_without_doubt(words) if assents else words)
    if is_unsure(words) or (parts and parts[0][0] in _QUESTION_STARTS):
        return None
    if assents and (assented := _assented(parts[0] if parts else [])) is not None:
        return assented
    return _stated(parts[0], question) if parts else None


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


def _is_negative(words: Sequence[str]) -> bool:
    """Whether tokens state an absence; "not free of ships" does not."""
    return NEGATORS.isdisjoint(words) != _ABSENT.isdisjoint(words)


def _stated(sentence: Sequence[str], question: Sequence[str]) -> bool | None:
    """What a sentence without "yes" or "no" says of a question."""
    negated = _is_negative(sentence) != _asks_for_absence(question)
    facts = [word for word in sentence if word not in SKIPPED]
    if len(sentence) == 1:
        return not negated if sentence[0] in _PRESENCE else None
    if facts and _PRESENCE.issuperset(facts):
        return not negated
    compared = _compares(sentence, question)
    if compared is not None:
        return compared != negated
    stated = set(phrase_words(sentence))
    asked = set(phrase_words(_asked_sentence(question))) - _NOT_ASKED
    opposite = [word for word in asked - stated if not stated.isdisjoint(_opposites(word))]
    if not asked or len(asked & stated) + len(opposite) < _COVERED * len(asked):
        return not negated if _is_negative(sentence) and sentence[0] in ("there", "no") else None
    return negated == bool(opposite)


def _asked_sentence(question: Sequence[str]) -> Sequence[str]:
    """The sentence of a question that asks, without instructions; the question if none starts as a question does."""
    if SENTENCE not in question and LINE not in question:
        return question
    return next((part for part in sentences(question) if part[0] in _QUESTION_STARTS), question)


def _asks_for_absence(question: Sequence[str]) -> bool:
    """Whether "yes" to a question states an absence ("Is it free of ships?"); "isn't it" and "yes or no" do not."""
    if _NEGATIONS.isdisjoint(question):
        return False
    asked = _asked_sentence(question)
    edges = DELIMITERS | {"or", "yes"}
    return _is_negative(
        [
            word
            for i, word in enumerate(asked)
            if word in _ABSENT
            or (word in _NEGATIONS and i > 1 and asked[i - 1] not in edges and edges.isdisjoint(asked[i + 1 : i + 2]))
        ]
    )


def _opposites(stem: str) -> tuple[str | None, str, str]:
    """Stems of the opposite meaning: of a pair such as left and right, and with or without "un"."""
    return OPPOSITES.get(stem), f"un{stem}", stem.removeprefix("un") if len(stem) > 6 else f"un{stem}"


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
