"""Words and terms of a caption, with the facts that each states."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from geovlm_ray.rewards.facts.numerals import with_numerals
from geovlm_ray.rewards.facts.vocabulary import ATTRIBUTES, EXCEPTION_TERMS, FACTS, NEGATION, TERM_STARTS, Fact
from geovlm_ray.rewards.facts.wording import content_words, is_filler

EXCEPTIONS = frozenset(EXCEPTION_TERMS.split(","))
"""Terms before what a statement does not hold for: "nothing changed apart from a new road"."""
CLAUSE_ENDS = frozenset(",.;:!?") | {"and", "or", "nor", "while", "but", "whereas", "although", "however"} | EXCEPTIONS
SENTENCE_ENDS = frozenset(".;!?")
SURROUND = frozenset(
    {"surround", "surrounds", "surrounded", "surrounding", "encircle", "encircles", "encircled", "encircling"}
    | {"enclose", "encloses", "enclosed", "enclosing", "ringed"}
)
MAX_CACHED_WORD = 64
"""Longer words are not cached, so that adversarial answers cannot fill the cache."""

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[,.;:!?]", re.ASCII)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOSTROPHES = str.maketrans("’ʼ", "''")
# The images themselves are no objects: "the two images", "both dates", "image 2".
_IMAGES = re.compile(
    r"\b(?:two|both)\s+(?=(?:images?|scenes?|pictures?|photos?|dates?|times?|periods?)\b)"
    r"|(?<=\bimage)\s+[12]\b|(?<=\bpicture)\s+[12]\b"
)
# Nouns that only measure what follows: "a large piece of farmland" is large farmland.
_MEASURE = re.compile(r"\b(?:piece|expanse|stretch|patch|tract|area|part|swath|block|plot)s?\s+of\s+(?!the\b)")
# "In 2019" counts nothing.
_YEAR = re.compile(r"\b(?:in|since|from|until|by|of|and|to)\s+(?:19|20)\d\d\b(?!\s+(?!an?\b|the\b|there\b)[a-z])")
# "A ship and another at the pier" are two ships.
_ANOTHER = re.compile(
    r"\b(?:an?|one)\s+([a-z]{1,30}(?:\s[a-z]{1,30})?)\s+and\s+another\b"
    r"(?:\s+\1\b|(?:\s+one)?(?=\s*(?:[.,;]|\Z|(?:at|on|in|near|by|beside|next|along|is|are|were|lie|stand|sit)\b)))"
)


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a caption in lower case, or a punctuation mark.

    ``facts`` are all its facts; ``objects``, ``changes``, ``directions`` and ``attributes`` those of some kinds.
    ``noun`` is its singular, as far as the letter s makes the plural; ``words`` are its content words; ``unknown`` says
    that it is one without a fact; ``binds`` that it states something of the objects of its clause.
    """

    text: str
    facts: tuple[Fact, ...] = ()
    objects: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    attributes: tuple[Fact, ...] = ()
    noun: str = ""
    words: tuple[str, ...] = ()
    unknown: bool = False
    binds: bool = False


def split_terms(text: str) -> list[Term]:
    """Split a text into terms: the longest ones of the vocabulary, single words, and punctuation marks."""
    words = _words(text.casefold())
    found: list[Term] = []
    named = Term("one")
    i = 0
    known = _known()
    pairs = [*itertools.pairwise(words), None]
    while i < len(words):
        word = words[i]
        term, length = _longest(words, i) if pairs[i] in TERM_STARTS else (known.get(word) or _other(word), 1)
        if term.facts and found:
            if len(found) > 1 and found[-1].text in ("and", ",") and _same_kind(found[-2], term):
                found.pop()
            elif term.text in ("one", "ones") and _is_adjective(found[-1]):
                term = named
        if term.objects:
            named = term
        found.append(term)
        i += length
    return found


def clauses(terms: list[Term], ends: frozenset[str] = CLAUSE_ENDS) -> Iterator[list[Term]]:
    """Split terms at punctuation and conjunctions, which end a clause and are the first term of the next."""
    start = 0
    for i, term in enumerate(terms):
        if term.text in ends and i > start:
            yield terms[start:i]
            start = i
    if start < len(terms):
        yield terms[start:]


def _is_adjective(term: Term) -> bool:
    return bool(term.facts) and term.facts[0][0] in ("colour", "size", "direction")


def _same_kind(a: Term, b: Term) -> bool:
    """Whether both are adjectives of one kind: "red and blue containers" is one phrase."""
    return _is_adjective(a) and _is_adjective(b) and a.facts[0][0] == b.facts[0][0]


def _words(text: str) -> list[str]:
    """Words and punctuation marks of a lower-case text, without those that speak of the images or only measure."""
    if not text.isascii():
        text = text.translate(_APOSTROPHES)
    if "n't" in text:
        text = text.replace("n't", " not")
    if "image" in text or "two " in text or "both " in text:
        text = _IMAGES.sub("", text)
    if "another" in text:
        text = _ANOTHER.sub(r"two \1", text)
    if "19" in text or "20" in text:
        text = _YEAR.sub("", text)
    if "," in text:
        text = _THOUSANDS.sub("", text)
    return with_numerals(_WORD.findall(_MEASURE.sub("", text) if " of " in text else text))


def _longest(words: list[str], at: int) -> tuple[Term, int]:
    """The longest term that begins at an index, and its number of words."""
    known = _known()
    for length in range(min(TERM_STARTS[words[at], words[at + 1]], len(words) - at), 1, -1):
        term = known.get(" ".join(words[at : at + length]))
        if term:
            return term, length
    return known.get(words[at]) or _other(words[at]), 1


def _make_term(text: str, facts: tuple[Fact, ...]) -> Term:
    objects, changes, directions = (
        tuple(v for k, v in facts if k == kind) for kind in ("object", "change", "direction")
    )
    attributes = tuple(fact for fact in facts if fact[0] in ATTRIBUTES)
    return Term(
        text,
        facts,
        objects,
        changes,
        directions,
        attributes=attributes,
        noun=text.removesuffix("s"),
        words=content_words(text, facts),
        unknown=not facts and not is_filler(text),
        binds=bool(attributes or directions) or facts == NEGATION or text in SURROUND,
    )


@functools.cache
def _known() -> dict[str, Term]:
    return {text: _make_term(text, facts) for text, facts in FACTS.items()}


@functools.lru_cache(maxsize=1 << 16)
def _cached_other(text: str) -> Term:
    return _make_term(text, (("number", f"{float(text):g}"),) if text[0].isdigit() else ())


def _other(text: str) -> Term:
    """A numeral, a mark or a word that the vocabulary does not have."""
    return (_cached_other if len(text) <= MAX_CACHED_WORD else _cached_other.__wrapped__)(text)
