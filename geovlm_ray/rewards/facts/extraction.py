"""Extraction of facts from a caption: which values it states, and of which object."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from geovlm_ray.rewards.facts.changes import changes
from geovlm_ray.rewards.facts.clause import Clause
from geovlm_ray.rewards.facts.no_change import states_no_change
from geovlm_ray.rewards.facts.terms import Term, clauses, split_terms
from geovlm_ray.rewards.facts.wording import is_filler, wording

MAX_CACHED_CHARS = 1024

ATTRIBUTES = ("number", "density", "colour", "size", "width", "length", "height")
_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Facts:
    """Facts of a caption by kind.

    ``values`` holds all of them; ``bindings`` the (value, object) pairs, with the object "" if none is described.
    ``nouns`` holds the words for each object, ``unknown`` the content words without a fact, ``words`` all content words
    (`wording`). ``no_change``: the caption states that nothing has changed.
    """

    values: dict[str, frozenset[str]]
    bindings: dict[str, frozenset[tuple[str, str]]]
    nouns: dict[str, frozenset[str]]
    unknown: frozenset[str]
    words: tuple[str, ...]
    no_change: bool


def facts(text: str) -> Facts:
    """Extract the facts of a text.

    Kinds are ``number``, ``density``, ``direction``, ``colour``, ``size`` (also ``width``, ``length``, ``height``),
    ``change``, ``negation`` and ``object``. The number one is only in ``bindings``, because "a ship" and "the ship" are
    equivalent.
    """
    return (_cached_facts if len(text) <= MAX_CACHED_CHARS else _cached_facts.__wrapped__)(text)


@functools.lru_cache(maxsize=1 << 15)
def _cached_facts(text: str) -> Facts:
    terms = split_terms(text)
    no_change = states_no_change(terms)
    values: defaultdict[str, set[str]] = defaultdict(set)
    bindings: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for term in terms:
        for kind, value in term.facts:
            if (kind, value) != ("number", "1"):
                values[kind].add(value)
    if no_change:
        values["negation"].add("not")
    nouns: defaultdict[str, set[str]] = defaultdict(set)
    for term in terms:
        for name in term.of_kind("object"):
            nouns[name].add(term.text.removesuffix("s"))
    for kind, value, name in _bindings(terms, nouns):
        bindings[kind].add((value, name))
    frozen = ({k: frozenset(v) for k, v in table.items()} for table in (values, bindings, nouns))
    unknown = frozenset(t.text.removesuffix("s") for t in terms if not t.facts and not is_filler(t.text))
    return Facts(*frozen, unknown, ("no", "change") if no_change else wording(terms), no_change)


def _bindings(terms: list[Term], nouns: Mapping[str, set[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, value, object); for an object of several nouns ("cargo ship", "boat") also (kind, value, noun)."""
    places: list[tuple[str, str, str]] = []
    for clause in map(Clause, clauses(terms)):
        for i, term in enumerate(clause.terms):
            for kind, value in term.facts:
                if kind in ATTRIBUTES:
                    named = clause.described(i)
                    yield kind, value, named.name
                    if len(nouns.get(named.name, ())) > 1:
                        yield kind, value, clause.terms[named.at].text.removesuffix("s")
                elif kind == "negation":
                    yield kind, value, clause.denied(i).name
                elif kind == "direction":
                    figure, ground = clause.placed(i)
                    places.append((value, figure.name, ground.name))
                    if len(nouns.get(figure.name, ())) > 1:
                        places.append((value, clause.terms[figure.at].text.removesuffix("s"), ""))
    yield from (("direction", place, name) for place, name in _directions(places))
    yield from (("change", value, name) for value, name in changes(terms))


def _directions(places: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (direction, object) of (direction, object there, object that the place is relative to).

    "A ship left of a plane" also puts the plane right of the ship. "Top center" is the top. The place of one thing
    alone binds to no object, because the noun that stands nearest to it may be another one.
    """
    bound = [(place, figure) for place, figure, _ in places]
    bound += [(_OPPOSITE[place], ground) for place, _, ground in places if ground and place in _OPPOSITE]
    single = len({name for _, name in bound}) == 1
    sides = {name for place, name in bound if place != "center"}
    for place, name in bound:
        if place != "center" or name not in sides:
            yield place, "" if single else name
