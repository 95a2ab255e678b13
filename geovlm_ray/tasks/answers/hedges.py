"""Answers that say that the answer is not known: "no idea", "not clear if ...", "there may or may not be ..."."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.words import DELIMITERS, word_set

_UNSURE = word_set(
    "maybe unsure unclear uncertain unknown unable perhaps possibly difficult impossible hard undetermined insufficient"
)
_KNOWN = word_set("sure certain clear obvious possible known enough able apparent")
"""Words that say so after "not"."""
_KNOW = word_set(
    "know determine determined tell told say said confirm confirmed answer answered judge judged decide decided assess "
    "assessed verify verified guess conclude concluded"
)
"""Verbs that say so after "cannot" or "do not"."""
_KNOWLEDGE = word_set("idea clue answer information info comment data opinion guess knowledge detail")
"""Nouns that say so after "no"."""
_ADVERBS = word_set("really entirely fully completely quite very absolutely at all 100 be to for it that so too yet")
_MODALS = word_set("may might could can whether")
_OPEN_CLAUSES = frozenset(("if", "whether"))
_MAX_ADVERBS = 3
_CLAUSE_WORDS = 16
_SIGNS = _UNSURE | NEGATORS | {"or"}


def is_unsure(words: Sequence[str]) -> bool:
    """Whether the tokens of an answer say that the answer is not known."""
    if _SIGNS.isdisjoint(words):
        return False
    if not _UNSURE.isdisjoint(words):
        return True
    return any(word in _SIGNS and _denies_knowledge(words, i) for i, word in enumerate(words))


def _denies_knowledge(words: Sequence[str], i: int) -> bool:
    word = words[i]
    following = words[i + 1] if i + 1 < len(words) else ""
    if word == "or":
        return i > 0 and words[i - 1] in _MODALS and (following == "not" or following in _MODALS)
    if word not in NEGATORS:
        return False
    if word == "no":
        return following in _KNOWLEDGE or (following == "way" and words[i + 2 : i + 3] == ["to"]) or _whether(words, i)
    if word in ("not", "cannot", "never", "without"):
        end = i + 1
        while end < min(i + 1 + _MAX_ADVERBS, len(words)) and words[end] in _ADVERBS:
            end += 1
        return (end < len(words) and (words[end] in _KNOW or words[end] in _KNOWN)) or _whether(words, i)
    return False


def _whether(words: Sequence[str], start: int) -> bool:
    """Whether a clause with "whether" follows in the same part of the sentence."""
    for word in words[start + 1 : start + _CLAUSE_WORDS]:
        if word in DELIMITERS:
            return False
        if word == "whether":
            return True
    return False


def without_unknown(words: list[str]) -> list[str]:
    """Tokens without a clause that the answer leaves open: "it is hard to say if it is destroyed"."""
    if _OPEN_CLAUSES.isdisjoint(words):
        return words
    start = next((i for i, word in enumerate(words) if word in _OPEN_CLAUSES and (i or word == "whether")), None)
    return words[:start] if start is not None and is_unsure(words[:start] or words) else words
