"""Answers that say that the answer is not known: "no idea", "not clear if ...", "there may or may not be ..."."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.words import DELIMITERS, word_set

_UNSURE = word_set(
    "maybe unsure unclear uncertain unknown unable perhaps possibly difficult impossible hard undetermined insufficient"
)
_KNOWN = word_set("sure certain clear obvious possible known able apparent applicable")
"""Words that say so after "not"."""
_KNOW = word_set(
    "know determine determined tell told say said confirm confirmed answer answered judge judged decide decided assess "
    "assessed verify verified guess conclude concluded specify specified state stated mention mentioned given provide "
    "provided allow permit assist help count counted measure measured estimate estimated calculate calculated quantify "
    "discern distinguish"
)
"""Verbs that say so after "cannot" or "do not"."""
_KNOWLEDGE = word_set("idea clue answer information info comment data opinion guess knowledge detail")
"""Nouns that say so after "no" and "lack"."""
_PERCEIVE = word_set("see view access open load process analyze analyse")
_IMAGES = word_set("image picture photo photograph attachment")
_RECOGNIZE = _KNOW | word_set(
    "see seen identify identified detect detected recognize recognized make resolve spot find"
)
"""Verbs that say so in "too small to see"."""
_ADVERBS = word_set("really entirely fully completely quite very absolutely at all 100 be to for it that so too yet")
_MODALS = word_set("may might could can whether")
_OPEN_CLAUSES = frozenset(("if", "whether"))
_MAX_ADVERBS = 3
_CLAUSE_WORDS = 16
_SUFFICIENCY = frozenset(("enough", "clearly", "sufficient", "sufficiently"))
_MANY = frozenset(("many", "numerous"))
_NEAR = 5
"""Words after "too", "not" and the like that are looked at."""
_SIGNS = _UNSURE | NEGATORS | {"or", "too"}


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
    near = words[i + 1 : i + 1 + _NEAR]
    if word == "too":
        return following not in _MANY and "to" in near and not _RECOGNIZE.isdisjoint(near)
    if word in ("lack", "lacking"):
        return not _KNOWLEDGE.isdisjoint(near)
    if word == "no":
        return following in _KNOWLEDGE or (following == "way" and words[i + 2 : i + 3] == ["to"]) or _whether(words, i)
    if word in ("not", "cannot", "never", "without"):
        end = i + 1
        while end < min(i + 1 + _MAX_ADVERBS, len(words)) and words[end] in _ADVERBS:
            end += 1
        denied = words[end : end + _NEAR]
        return not _SUFFICIENCY.isdisjoint(denied) or _is_knowing(denied) or _whether(words, i)
    return False


def _is_knowing(words: Sequence[str]) -> bool:
    """Whether words after a negation say that the answer is known, or that the image itself is seen."""
    if not words:
        return False
    return words[0] in _KNOW or words[0] in _KNOWN or (words[0] in _PERCEIVE and not _IMAGES.isdisjoint(words[1:3]))


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
