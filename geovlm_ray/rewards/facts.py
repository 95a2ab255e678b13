"""The facts of a caption, compared between two texts: numbers, directions, colours, negation and objects.

Embeddings and lexical overlap hardly see a swapped fact; this does. A fact is compared alone and with the
object that it speaks of, so that "two ships and three planes" is not "three ships and two planes".
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from geovlm_ray.rewards.fact_words import PAIR_STARTS, Fact, facts_of

FLOOR = 0.2
"""What one kind of fact leaves of the score where nothing of it is right."""
SILENT = 0.7
"""How right a kind of fact is that only one of the two texts speaks of."""

LONGEST_CACHED = 1024

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
Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """``said`` has the facts by kind; ``bound`` has (value, object) by kind for facts that speak of an object."""

    said: dict[str, frozenset[str]]
    bound: dict[str, frozenset[tuple[str, str]]]


def facts(text: str) -> Facts:
    """The facts of a text; kinds are ``number``, ``direction``, ``colour``, ``negation`` and ``object``.

    The number one is only bound, as "a ship" and "the ship" say the same.
    """
    return _cached_facts(text) if len(text) <= LONGEST_CACHED else _find_facts(text)


def agreement(answer: str, reference: str) -> float:
    """How far the facts of an answer agree with those of a reference, in [0, 1].

    Each kind of fact is a factor between `FLOOR` and 1: one swapped kind leaves about a fifth, two a
    twenty-fifth. What only one text speaks of costs little, what both speak of and differ in costs all.
    """
    left, right = facts(answer), facts(reference)
    value = 1.0
    for kind in sorted({*left.said, *right.said, *left.bound, *right.bound}):
        said = _said_alike(kind, left.said.get(kind, frozenset()), right.said.get(kind, frozenset()))
        bound = _bound_alike(left.bound.get(kind, frozenset()), right.bound.get(kind, frozenset()))
        value *= FLOOR + (1 - FLOOR) * min(said, bound)
    return value


def _said_alike(kind: str, a: frozenset[str], b: frozenset[str]) -> float:
    """Squared F1 of the facts of a kind (of objects not squared, as each text picks its own)."""
    if a == b:
        return 1.0
    if kind == "negation":
        return 0.0
    if not a or not b:
        return SILENT
    f1 = 2 * len(a & b) / (len(a) + len(b))
    return f1 if kind == "object" else f1**2


def _bound_alike(a: frozenset[tuple[str, str]], b: frozenset[tuple[str, str]]) -> float:
    """Share of what both texts bind (objects, and values other than one) where they do not contradict each other."""
    common = clashes = 0
    for left, right in ((_by_second(a), _by_second(b)), (_by_first(a), _by_first(b))):
        keys = left.keys() & right.keys() - {"1"}
        common += len(keys)
        clashes += sum(left[key].isdisjoint(right[key]) for key in keys)
    return 1 - clashes / common if common else 1.0


def _by_second(pairs: Pairs) -> dict[str, set[str]]:
    return _by_first((second, first) for first, second in pairs)


def _by_first(pairs: Pairs) -> dict[str, set[str]]:
    grouped: defaultdict[str, set[str]] = defaultdict(set)
    for first, second in pairs:
        grouped[first].add(second)
    return grouped


def _find_facts(text: str) -> Facts:
    said: defaultdict[str, set[str]] = defaultdict(set)
    bound: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for clause in _clauses(text):
        for _, (kind, value) in clause:
            if (kind, value) != ("number", "1"):
                said[kind].add(value)
        for kind, value, thing in _bindings(clause):
            bound[kind].add((value, thing))
    return Facts({k: frozenset(v) for k, v in said.items()}, {k: frozenset(v) for k, v in bound.items()})


_cached_facts = functools.lru_cache(maxsize=1 << 15)(_find_facts)


def _clauses(text: str) -> Iterator[Clause]:
    """The facts of each clause, each with the number of its phrase."""
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
    """Kind, value and object of each fact of a clause that speaks of an object.

    A number belongs to the object that ends its phrase, a colour to that one or else to the last object before
    it ("a ship painted red"), a direction to the last object before it or else to the next ("at the left a ship").
    """
    things = [(i, phrase, name) for i, (phrase, (kind, name)) in enumerate(clause) if kind == "object"]
    passed = 0
    for i, (phrase, (kind, value)) in enumerate(clause):
        while passed < len(things) and things[passed][0] <= i:
            passed += 1
        before = things[passed - 1][2] if passed else None
        after = things[passed][2] if passed < len(things) else None
        same_phrase = after if passed < len(things) and things[passed][1] == phrase else None
        choices = {"number": same_phrase, "colour": same_phrase or before, "direction": before or after}
        thing = choices.get(kind)
        if thing:
            yield kind, value, thing
