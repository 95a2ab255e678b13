"""Factual agreement of two captions: numbers, directions, colours, negation and objects.

Embeddings and lexical overlap are insensitive to swapped facts. Facts are compared alone and together with the object
that they describe, so "two ships and three planes" differs from "three ships and two planes".
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from geovlm_ray.rewards.fact_words import PAIR_STARTS, Fact, facts_of

FLOOR = 0.2
"""Score multiplier if every fact of a kind is wrong."""
ONE_SIDED_AGREEMENT = 0.7
"""Agreement of a kind of fact that only one of the two texts states."""

MAX_CACHED_CHARS = 1024

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[,.;:!?]", re.ASCII)
_BOTH_IMAGES = re.compile(r"\b(?:two|both)\s+(?=images?\b|scenes?\b|pictures?\b|photos?\b)")
_UNCHANGED = re.compile(r"\bsame(?=\s+as\b|\s+before\b|\s*[.,;]|\s*\Z)")
_CLAUSE_ENDS = frozenset(",.;:!?") | {"and", "or", "while", "but"}
_PHRASE_ENDS = frozenset(
    {"of", "on", "in", "at", "near", "beside", "by", "with", "to", "from", "between", "next", "around", "along"}
    | {"among", "behind", "is", "are", "was", "were", "has", "have"}
)
_SINGLE = frozenset({"a", "an", "one", "1", "single"})

Clause = list[tuple[int, Fact]]


@dataclass(frozen=True)
class Facts:
    """``values`` holds the facts by kind; ``bindings`` the (value, object) pairs of facts that describe an object."""

    values: dict[str, frozenset[str]]
    bindings: dict[str, frozenset[tuple[str, str]]]


def facts(text: str) -> Facts:
    """Extract the facts of a text; kinds are ``number``, ``direction``, ``colour``, ``negation`` and ``object``.

    The number one appears only in ``bindings``, because "a ship" and "the ship" are equivalent.
    """
    return (_cached_facts if len(text) <= MAX_CACHED_CHARS else _cached_facts.__wrapped__)(text)


def agreement(answer: str, reference: str) -> float:
    """Factual agreement of an answer and a reference, in [0, 1].

    The product of one factor in [`FLOOR`, 1] per kind of fact: 0.2 if one kind is all wrong, 0.04 for two. A kind
    stated by only one text has a small penalty, a contradiction the full one.
    """
    left, right = facts(answer), facts(reference)
    value = 1.0
    for kind in sorted({*left.values, *right.values, *left.bindings, *right.bindings}):
        values = _value_agreement(kind, left.values.get(kind, frozenset()), right.values.get(kind, frozenset()))
        bindings = _binding_agreement(left.bindings.get(kind, frozenset()), right.bindings.get(kind, frozenset()))
        value *= FLOOR + (1 - FLOOR) * min(values, bindings)
    return value


def _value_agreement(kind: str, a: frozenset[str], b: frozenset[str]) -> float:
    """Squared F1 of the facts of a kind; plain F1 for objects, because texts select different ones."""
    if a == b:
        return 1.0
    if kind == "negation":
        return 0.0
    if not a or not b:
        return ONE_SIDED_AGREEMENT
    f1 = 2 * len(a & b) / (len(a) + len(b))
    return f1 if kind == "object" else f1**2


def _binding_agreement(a: frozenset[tuple[str, str]], b: frozenset[tuple[str, str]]) -> float:
    """Fraction of objects and values (except one) bound in both texts whose bindings do not contradict."""
    common = clashes = 0
    for side in (0, 1):
        left, right = _partners(a, side), _partners(b, side)
        keys = left.keys() & right.keys() - {"1"}
        common += len(keys)
        clashes += sum(left[key].isdisjoint(right[key]) for key in keys)
    return 1 - clashes / common if common else 1.0


def _partners(pairs: Iterable[tuple[str, str]], side: int) -> dict[str, set[str]]:
    """The other elements of the pairs with the same element on a side, 0 or 1."""
    grouped: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        grouped[pair[side]].add(pair[1 - side])
    return grouped


@functools.lru_cache(maxsize=1 << 15)
def _cached_facts(text: str) -> Facts:
    values: defaultdict[str, set[str]] = defaultdict(set)
    bindings: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for clause in _clauses(text):
        for _, (kind, value) in clause:
            if (kind, value) != ("number", "1"):
                values[kind].add(value)
        for kind, value, name in _bindings(clause):
            bindings[kind].add((value, name))
    return Facts({k: frozenset(v) for k, v in values.items()}, {k: frozenset(v) for k, v in bindings.items()})


def _clauses(text: str) -> Iterator[Clause]:
    """Yield the facts of each clause as (phrase index, fact)."""
    text = _BOTH_IMAGES.sub("", text.casefold().replace("n't", " not"))
    words = _WORD.findall(_UNCHANGED.sub("unchanged", text))
    clause: Clause = []
    phrase = i = 0
    while i < len(words):
        word = words[i]
        pair = facts_of(" ".join(words[i : i + 2])) if word in PAIR_STARTS else ()
        if word in _CLAUSE_ENDS:
            yield clause
            clause = []
        phrase += word in _PHRASE_ENDS
        clause.extend((phrase, fact) for fact in pair or _word_facts(word))
        i += 2 if pair else 1
    yield clause


def _word_facts(word: str) -> tuple[Fact, ...]:
    if word in _SINGLE:
        return (("number", "1"),)
    return (("number", f"{float(word):g}"),) if word[0].isdigit() else facts_of(word)


def _bindings(clause: Clause) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, value, object) of each fact in a clause that describes an object.

    A number binds to the next object of its phrase; a colour to that object, else to the preceding object ("a ship
    painted red"); a direction to the preceding object, else to the next one ("at the left a ship").
    """
    objects = [(i, phrase, name) for i, (phrase, (kind, name)) in enumerate(clause) if kind == "object"]
    passed = 0
    for i, (phrase, (kind, value)) in enumerate(clause):
        while passed < len(objects) and objects[passed][0] <= i:
            passed += 1
        before = objects[passed - 1][2] if passed else None
        after = objects[passed][2] if passed < len(objects) else None
        same_phrase = after if passed < len(objects) and objects[passed][1] == phrase else None
        choices = {"number": same_phrase, "colour": same_phrase or before, "direction": before or after}
        described = choices.get(kind)
        if described:
            yield kind, value, described
