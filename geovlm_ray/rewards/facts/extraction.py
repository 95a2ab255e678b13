"""Extraction of facts from a caption: which values it states, and of which object."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from geovlm_ray.rewards.facts.changes import changes
from geovlm_ray.rewards.facts.clause import Clause
from geovlm_ray.rewards.facts.no_change import states_no_change
from geovlm_ray.rewards.facts.terms import EXCEPTIONS, SURROUND, Term, clauses, split_terms
from geovlm_ray.rewards.facts.vocabulary import NEGATION

MAX_CAPTION_CHARS = 1024
"""Of longer texts only a few are cached, so that adversarial answers cannot fill the memory."""

_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "front": "back", "back": "front"}


Values = dict[str, frozenset[str]]
"""Values of a kind by the object that they describe."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a caption.

    Args:
        bindings: values by kind and by the object that they describe, "" if none; the kind ``quantity`` has numbers
            and densities.
        nouns: the nouns for each object.
        unknown: content words without a fact.
        words: all content words in their order, one spelling per meaning.
        no_change: the caption states that nothing has changed.
    """

    bindings: dict[str, Values]
    nouns: dict[str, frozenset[str]]
    unknown: frozenset[str]
    words: tuple[str, ...]
    no_change: bool

    @property
    def objects(self) -> frozenset[str]:
        """The objects that it names."""
        return frozenset(self.nouns)

    def values(self, kind: str) -> frozenset[str]:
        """All values of a kind; numbers are digits, without the number one, because "a ship" is "the ship"."""
        if kind in ("number", "density"):
            digits = kind == "number"
            return frozenset(v for v in self.values("quantity") if v != "1" and v[0].isdigit() == digits)
        return frozenset().union(*self.bindings.get(kind, {}).values())

    @property
    def denies(self) -> bool:
        """Whether it states that there is no change, or no object of some kind."""
        return self.no_change or "negation" in self.bindings


def facts(text: str) -> Facts:
    """Extract the facts of a text.

    Kinds are ``quantity`` (number and density), those of the other `ATTRIBUTES`, ``direction``, ``order`` (in front of
    or behind), ``around`` (outer or inner), ``change`` and ``negation``.
    """
    return (_facts_of_caption if len(text) <= MAX_CAPTION_CHARS else _facts_of_long_text)(text)


def _extract(text: str) -> Facts:
    terms = split_terms(text)
    words: list[str] = []
    unknown: set[str] = set()
    mentions: dict[str, list[str]] = {}
    for term in terms:
        if term.unknown:
            unknown.add(term.noun)
        for word in term.words:
            if not words or words[-1] != word:
                words.append(word)
        for name in term.objects:
            mentions.setdefault(name, []).append(term.noun)
    no_change = states_no_change(terms)
    return Facts(
        bindings=_bindings(terms, mentions),
        nouns={name: _frozen(nouns) for name, nouns in mentions.items()},
        unknown=frozenset(unknown),
        words=("no", "change") if no_change else tuple(words),
        no_change=no_change,
    )


def _bindings(terms: list[Term], mentions: Mapping[str, list[str]]) -> dict[str, Values]:
    found: dict[str, Values] = {}
    changed = [("change", value, name) for value, name in changes(terms)]
    for kind, value, name in _adjectives(terms, mentions) + changed:
        values = found.setdefault(kind, {})
        values[name] = values[name] | {value} if name in values else _single(value)
    quantities = found.get("quantity", {})
    for name, values_of in quantities.items():
        if len(values_of) > 1:
            quantities[name] = values_of - {"1"}  # the article of "a dense forest"
    return found


def _frozen(values: Collection[str]) -> frozenset[str]:
    """An immutable set; those of one value are shared, because cached captions have many of them."""
    return _single(next(iter(values))) if len(values) == 1 else frozenset(values)


@functools.lru_cache(maxsize=1 << 12)
def _single(value: str) -> frozenset[str]:
    return frozenset((value,))


def _adjectives(terms: list[Term], mentions: Mapping[str, list[str]]) -> list[tuple[str, str, str]]:
    """(kind, value, object) of each attribute, direction and negation.

    For an object that is named more than once also (kind, value, its noun) and (kind, value, its number and name), so
    that "a cargo ship" and "three boats", "a grey plane" and "two white planes" are told apart.
    """
    found: list[tuple[str, str, str]] = []
    places: list[tuple[str, str, str]] = []
    has_exception = any(term.text in EXCEPTIONS for term in terms)
    for of_clause in clauses(terms):
        if not any(term.binds for term in of_clause):
            continue
        clause = Clause(of_clause)
        for i, term in enumerate(of_clause):
            for kind, value in term.attributes:
                if kind == "rank" and not _ranks_object(of_clause[i + 1 : i + 5]):
                    continue
                at = clause.described(i)
                name = clause.name(at)
                merged = "quantity" if kind in ("number", "density") else kind
                found.append((merged, value, name))
                if len(mentions.get(name, ())) > 1:
                    found.append((merged, value, of_clause[at].noun))
                    if kind != "number" and (number := clause.number(i)):
                        found.append((merged, value, f"{number} {name}"))
            for place in term.directions:
                figure, ground = clause.placed(i)
                places.append((place, clause.name(figure), clause.name(ground)))
                if len(mentions.get(clause.name(figure), ())) > 1:
                    places.append((place, of_clause[figure].noun, ""))
            if term.text in SURROUND:
                outer, inner = map(clause.name, clause.surrounded(i))
                found += [("around", "outer", outer), ("around", "inner", inner)] if outer and inner else []
            if term.facts == NEGATION:
                denied = clause.denied(i)
                # "nothing has changed apart from a new road" denies all but the road.
                if not (has_exception and (denied < 0 or of_clause[0].text in EXCEPTIONS)):
                    found.append((*NEGATION[0], clause.name(denied)))
    return found + _directions(places)


def _ranks_object(following: list[Term]) -> bool:
    """Whether an ordinal before these terms counts objects: "second ship", "second from the left"; not an image."""
    if following and following[0].text == "from":
        return any(term.directions for term in following)
    return any(term.objects for term in following[:2])


def _directions(places: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Bindings of (direction, object there, object that the place is relative to).

    "A ship left of a plane" also puts the plane right of the ship. "Top center" is the top. The place of one thing
    alone binds to no object, because the noun that stands nearest to it may be another one.
    """
    bound = [(place, figure) for place, figure, _ in places]
    bound += [(_OPPOSITE[place], ground) for place, _, ground in places if ground and place in _OPPOSITE]
    single = len({name for _, name in bound}) == 1
    sides = {name for place, name in bound if place != "center"}
    return [
        ("order" if place in ("front", "back") else "direction", place, "" if single else name)
        for place, name in bound
        if place != "center" or name not in sides
    ]


_facts_of_caption = functools.lru_cache(maxsize=1 << 15)(_extract)
_facts_of_long_text = functools.lru_cache(maxsize=1 << 7)(_extract)
