"""Answers that describe two images of a place: the state after the event is the answer."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.tasks.answers.words import COMMA, LINE, SENTENCE, word_set

_BEFORE = word_set("before beforehand previously pre initially originally earlier formerly prior previous")
_AFTER = word_set("after afterward now post currently later subsequently current")
_PRESENT_TENSE = word_set("is are has have become remain")
_CLAUSE_ENDS = frozenset((COMMA, SENTENCE, LINE, "and", "but", "while", "whereas"))


def state_after(words: Sequence[str]) -> list[str] | None:
    """Tokens of the clauses about the state after an event; None if no clause is about the state before it.

    A clause without "before", "now" and the like is about the same state as the clause that precedes it. If none is
    marked as the state after, the present tense marks it.
    """
    if _BEFORE.isdisjoint(words):
        return None
    after = _PRESENT_TENSE if _AFTER.isdisjoint(words) else _AFTER
    kept: list[str] = []
    clause: list[str] = []
    is_before = False
    for word in (*words, SENTENCE):
        if word not in _CLAUSE_ENDS:
            clause.append(word)
            continue
        if not _BEFORE.isdisjoint(clause):
            is_before = _AFTER.isdisjoint(clause)
        elif not after.isdisjoint(clause):
            is_before = False
        if not is_before:
            kept += [*clause, word]
        clause = []
    return kept
