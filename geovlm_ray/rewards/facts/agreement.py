"""Agreement of the facts of two captions.

Embeddings and lexical overlap are insensitive to swapped facts. Facts are compared with the object that they describe,
so "two ships and three planes" differs from "three ships and two planes".
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from rapidfuzz.distance import Levenshtein

from geovlm_ray.rewards.facts.extraction import Facts, Values, facts
from geovlm_ray.rewards.facts.objects import IMPLIED, OBJECTS, VARIETIES
from geovlm_ray.rewards.facts.vocabulary import ATTRIBUTES, QUANTITIES

FLOOR = 0.2
"""Score multiplier if every fact of a kind is wrong."""
ONE_SIDED_AGREEMENT = 0.85
"""Agreement of a fact that only one of the two texts states."""

MIN_LOOKALIKE, LONG_WORD = 3, 8
"""Letters above which two words can look alike, and from which they may differ by two letters instead of one."""

NONE: frozenset[str] = frozenset()
_ARTICLE, _SCALE = frozenset({"1"}), frozenset({"dense", "sparse", "medium"})
"""The article of "a residential area" does not contradict "a dense residential area"."""
_EXCLUSIVE = ("shape", "depth", "rank", "distance", "order", "around")
"""Kinds of facts that only count where both texts state one of the same object."""
_COMPARED = ("quantity", "direction", "change", *(kind for kind in ATTRIBUTES[2:] if kind not in _EXCLUSIVE))


def fact_agreement(answer: str, reference: str) -> float:
    """Factual agreement of an answer and a reference, in [0, 1].

    The product of one factor in [`FLOOR`, 1] per kind of fact: 0.2 if one kind is all wrong, 0.04 for two. A fact that
    only one text states has a small penalty, a contradiction the full one. That nothing has changed is one fact: it
    agrees with all its wordings and with nothing else.
    """
    left, right = facts(answer), facts(reference)
    if left.no_change or right.no_change:
        return 1.0 if left.no_change == right.no_change else FLOOR
    value = _factor(_objects(left, right)) * _factor(_negation(left, right))
    common = left.nouns.keys() & right.nouns.keys()
    if any(left.nouns[name] != right.nouns[name] and _differ_in_variety(left, right, name) for name in common):
        value *= FLOOR
    for kind in _EXCLUSIVE:
        if kind in left.bindings and kind in right.bindings and _contradict(left.bindings[kind], right.bindings[kind]):
            value *= FLOOR
    for kind in _COMPARED:
        if kind in left.bindings or kind in right.bindings:
            named = NONE if kind in ("direction", "change") else common
            value *= _factor(_attributes(left.bindings.get(kind, {}), right.bindings.get(kind, {}), named))
    return value


def _factor(agreed: float) -> float:
    return FLOOR + (1 - FLOOR) * agreed


def _objects(left: Facts, right: Facts) -> float:
    """F1 of the objects, squared if each text has objects that the other does not.

    An object that an object of the other text implies counts as named there, unless it stands for another one.
    """
    a, b = left.objects, right.objects
    if a == b:
        return 1.0
    mistaken_a, mistaken_b = _mistaken(left, right), _mistaken(right, left)
    if not (a or mistaken_b) or not (b or mistaken_a):
        return ONE_SIDED_AGREEMENT
    named_a, named_b = _named(a, b) - mistaken_a, _named(b, a) - mistaken_b
    wrong_a, wrong_b = len(a - named_a) + len(mistaken_b), len(b - named_b) + len(mistaken_a)
    wrong_a, wrong_b = wrong_a + min(wrong_b, len(named_a - b)), wrong_b + min(wrong_a, len(named_b - a))
    f1 = 1 - (wrong_a + wrong_b) / (len(a) + len(b) + len(mistaken_a) + len(mistaken_b))
    return f1**2 if wrong_a and wrong_b else f1


def _differ_in_variety(left: Facts, right: Facts, name: str) -> bool:
    """Whether the nouns of an object are of other varieties in each text: orchards and vineyards."""
    a, b = ({VARIETIES.get(noun) for noun in side.nouns[name]} for side in (left, right))
    return None not in a and None not in b and a.isdisjoint(b)


def _contradict(a: Values, b: Values) -> bool:
    """Whether the values of an object have nothing in common: curved roads in one text, straight ones in the other."""
    return any(a[name].isdisjoint(b[name]) for name in a.keys() & b.keys())


def _mistaken(side: Facts, other: Facts) -> frozenset[str]:
    """Objects for which the other text has a word that only looks alike: "chips" for ships, "arbour" for a harbour."""
    missing = side.objects - other.objects
    return frozenset(
        name for name in missing if any(map(_look_alike, itertools.product(side.nouns[name], other.unknown)))
    )


def _look_alike(words: tuple[str, str]) -> bool:
    longer = max(map(len, words))
    return longer > MIN_LOOKALIKE and Levenshtein.distance(*words, score_cutoff=2) <= (1 if longer < LONG_WORD else 2)


def _named(names: frozenset[str], others: frozenset[str]) -> set[str]:
    """The names that the others contain or imply."""
    implied = others.union(*(IMPLIED.get(name, ()) for name in others))
    return {name for name in names if name in implied}


def _negation(left: Facts, right: Facts) -> float:
    """0 if one text denies an object that the other, without any negation, states."""
    if "negation" not in left.bindings and "negation" not in right.bindings:
        return 1.0
    denied_a, denied_b = (frozenset(side.bindings.get("negation", {})) for side in (left, right))
    if denied_a == denied_b:
        return 1.0
    if denied_a and denied_b:
        return 1.0 if _named(denied_a, denied_b) or _named(denied_b, denied_a) else ONE_SIDED_AGREEMENT
    stated = (right if denied_a else left).objects
    return 0.0 if "" in denied_a | denied_b or _named(denied_a | denied_b, stated) else ONE_SIDED_AGREEMENT


def _attributes(a: Values, b: Values, named: Collection[str]) -> float:
    """Squared share of the values of common objects that agree, less a little for values of other objects.

    A value of one object of ``named`` that the other text gives to another of them disagrees: "a red car beside a
    house" and "a car beside a red house".
    """
    matched = clashed = 0.0
    for name in a.keys() & b.keys():
        if a[name] == b[name]:
            matched += a[name] != _ARTICLE
        elif _ARTICLE not in (a[name], b[name]) or not (a[name] | b[name]) <= _ARTICLE | _SCALE:
            share = _f1(*_specific(a[name], b[name]), b.get("", NONE), a.get("", NONE))
            matched, clashed = matched + share, clashed + 1 - share
    rest_a, rest_b = (_rest(a, b), _rest(b, a)) if a.keys() != b.keys() else ({}, {})
    if rest_a and rest_b:
        if _floats(rest_a) or _floats(rest_b) or _related(rest_a, rest_b):
            share = _f1(_all(rest_a), _all(rest_b), NONE, NONE)
            matched, clashed = matched + share, clashed + 1 - share
            rest_a = rest_b = {}
        else:
            clashed += len(_of_named(rest_a, named) & _of_named(rest_b, named))
    alone = len(rest_a) + len(rest_b)
    agreed = (matched / (matched + clashed)) ** 2 if matched + clashed else 1.0
    return agreed * (1 - (1 - ONE_SIDED_AGREEMENT) * alone / (matched + clashed + alone)) if alone else agreed


def _of_named(values: Values, named: Collection[str]) -> frozenset[str]:
    return _all({name: found for name, found in values.items() if name in named})


def _specific(a: frozenset[str], b: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Both without the damage that a flood or a fire has caused, if both say more than that there is damage."""
    rest = a - {"damage"}, b - {"damage"}
    return rest if all(rest) else (a, b)


def _rest(mine: Values, other: Values) -> Values:
    """The values of objects that the other text does not describe; the number one of an article is none."""
    return {name: values for name, values in mine.items() if name not in other and values != _ARTICLE}


def _floats(values: Values) -> bool:
    """Whether a value describes something outside the vocabulary."""
    return any(name not in OBJECTS for name in values)


def _related(a: Values, b: Values) -> bool:
    """Whether an object of one text implies one of the other, as a river and its water."""
    names = frozenset(a), frozenset(b)
    return bool(_named(*names) or _named(names[1], names[0]))


def _all(values: Values) -> frozenset[str]:
    return NONE.union(*values.values())


def _f1(a: frozenset[str], b: frozenset[str], more_b: frozenset[str], more_a: frozenset[str]) -> float:
    """F1 of two sets of values; ``more_a`` and ``more_b`` may match but need not."""
    if a == b:
        return 1.0
    common = sum(_compatible(value, b | more_b) for value in a) + sum(_compatible(value, a | more_a) for value in b)
    return common / (len(a) + len(b))


def _compatible(value: str, others: Collection[str]) -> bool:
    return value in others or any(_quantities_overlap(value, other) for other in others)


def _quantities_overlap(a: str, b: str) -> bool:
    """Whether "many" and 20, or "several" and "many", can be the same quantity; two numbers only if they are equal."""
    if a not in QUANTITIES and b not in QUANTITIES:
        return False
    bounds = [QUANTITIES.get(value) or _bounds(value) for value in (a, b)]
    if None in bounds:
        return False
    (low_a, high_a), (low_b, high_b) = bounds  # type: ignore[misc]
    return low_a <= high_b and low_b <= high_a


def _bounds(value: str) -> tuple[float, float] | None:
    return (float(value), float(value)) if value[0].isdigit() else None
