"""Extraction of facts from a caption: which values it states, and of which object."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from geovlm_ray.rewards.facts.changes import changes
from geovlm_ray.rewards.facts.clause import Clause
from geovlm_ray.rewards.facts.no_change import states_no_change
from geovlm_ray.rewards.facts.terms import Term, clauses, split_terms
from geovlm_ray.rewards.facts.vocabulary import NEGATION

MAX_CAPTION_CHARS = 1024
"""Of longer texts only a few are cached, so that adversarial answers cannot fill the memory."""

_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


Values = dict[str, frozenset[str]]
"""Values of a kind by the object that they describe."""


@dataclass(frozen=True)
class Facts:
    """Facts of a caption by kind.

    ``values`` holds all of them; ``bindings`` the values by the object that they describe, "" if none, where numbers and
    densities are one kind, ``quantity``.
    ``nouns`` holds the words for each object, ``unknown`` the content words without a fact, ``words`` all content words
    in their order, one spelling per meaning. ``no_change``: the caption states that nothing has changed.
    """

    values: dict[str, frozenset[str]]
    bindings: dict[str, Values]
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
    return (_facts_of_caption if len(text) <= MAX_CAPTION_CHARS else _facts_of_long_text)(text)


def _extract(text: str) -> Facts:
    terms = split_terms(text)
    no_change = states_no_change(terms)
    values: dict[str, set[str]] = {}
    bindings: dict[str, dict[str, set[str]]] = {}
    mentions: dict[str, list[str]] = {}
    for term in terms:
        for kind, value in term.facts:
            if value != "1" or kind != "number":
                values.setdefault(kind, set()).add(value)
        for name in term.objects:
            mentions.setdefault(name, []).append(term.noun)
    if no_change:
        values.setdefault("negation", set()).add("not")
    for kind, value, name in _bindings(terms, mentions):
        merged = "quantity" if kind in ("number", "density") else kind
        bindings.setdefault(merged, {}).setdefault(name, set()).add(value)
    for described in bindings.get("quantity", {}).values():
        if len(described) > 1:
            described.discard("1")  # the article of "a dense forest"
    return Facts(
        values={kind: frozenset(found) for kind, found in values.items()},
        bindings={kind: {name: frozenset(found) for name, found in of.items()} for kind, of in bindings.items()},
        nouns={name: frozenset(nouns) for name, nouns in mentions.items()},
        unknown=frozenset(term.noun for term in terms if term.unknown),
        words=("no", "change") if no_change else _content(terms),
        no_change=no_change,
    )


def _content(terms: list[Term]) -> tuple[str, ...]:
    """The content words of a text; one that repeats the word before it is left out."""
    words: list[str] = []
    for term in terms:
        words += [word for word in term.words if word not in words[-1:]]
    return tuple(words)


def _bindings(terms: list[Term], mentions: Mapping[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, value, object).

    For an object that is named more than once also (kind, value, its noun) and (kind, value, its number and name), so
    that "a cargo ship" and "three boats", "a grey plane" and "two white planes" are told apart.
    """
    places: list[tuple[str, str, str]] = []
    for of_clause in clauses(terms):
        clause = Clause(of_clause)
        for i, term in enumerate(of_clause):
            for kind, value in term.attributes:
                at = clause.described(i)
                name = clause.name(at)
                yield kind, value, name
                if len(mentions.get(name, ())) > 1:
                    yield kind, value, of_clause[at].noun
                    if kind != "number" and (number := clause.number(i)):
                        yield kind, value, f"{number} {name}"
            for place in term.directions:
                figure, ground = clause.placed(i)
                places.append((place, clause.name(figure), clause.name(ground)))
                if len(mentions.get(clause.name(figure), ())) > 1:
                    places.append((place, of_clause[figure].noun, ""))
            if term.facts == NEGATION:
                yield *NEGATION[0], clause.name(clause.denied(i))
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


_facts_of_caption = functools.lru_cache(maxsize=1 << 15)(_extract)
_facts_of_long_text = functools.lru_cache(maxsize=1 << 7)(_extract)
