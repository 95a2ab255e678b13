"""Words and terms of a caption, with the facts that each states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from geovlm_ray.rewards.facts.vocabulary import TERM_STARTS, Fact, term_facts

CLAUSE_ENDS = frozenset(",.;:!?") | {"and", "or", "nor", "while", "but", "whereas", "although", "however", "except"}
SENTENCE_ENDS = frozenset(".;!?")

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[,.;:!?]", re.ASCII)
_APOSTROPHES = str.maketrans("’ʼ", "''")
# The images themselves are no objects: "the two images", "both dates", "image 2".
_IMAGES = re.compile(
    r"\b(?:two|both|2)\s+(?=(?:images?|scenes?|pictures?|photos?|dates?|times?|periods?)\b)"
    r"|(?<=\bimage)\s+[12]\b|(?<=\bpicture)\s+[12]\b"
)
# Nouns that only measure what follows: "a large piece of farmland" is large farmland.
_MEASURE = re.compile(r"\b(?:piece|expanse|stretch|patch|tract|area|part|swath|block|plot)s?\s+of\s+(?!the\b)")


class Term(NamedTuple):
    """A term of a caption in lower case, or a punctuation mark, and its facts."""

    text: str
    facts: tuple[Fact, ...]

    def of_kind(self, kind: str) -> list[str]:
        """Values of its facts of a kind."""
        return [value for k, value in self.facts if k == kind]


def split_terms(text: str) -> list[Term]:
    """Split a text into terms: the longest ones of the vocabulary, single words, and punctuation marks."""
    text = text.casefold().translate(_APOSTROPHES).replace("n't", " not")
    words = _WORD.findall(_MEASURE.sub("", _IMAGES.sub("", text)))
    found: list[Term] = []
    i = 0
    while i < len(words):
        length, facts = _longest(words, i)
        if len(found) > 1 and found[-1].text in ("and", ",") and _same_kind(found[-2].facts, facts):
            found.pop()
        found.append(Term(" ".join(words[i : i + length]), facts))
        i += length
    return found


def _same_kind(a: tuple[Fact, ...], b: tuple[Fact, ...]) -> bool:
    """Whether both are adjectives of one kind: "red and blue containers" is one phrase."""
    return bool(a and b) and a[0][0] == b[0][0] and a[0][0] in ("colour", "size", "direction")


def clauses(of: list[Term], ends: frozenset[str] = CLAUSE_ENDS) -> Iterator[list[Term]]:
    """Split terms at punctuation and conjunctions, which end a clause and are the first term of the next."""
    clause: list[Term] = []
    for term in of:
        if term.text in ends:
            yield clause
            clause = []
        clause.append(term)
    yield clause


def _longest(words: list[str], at: int) -> tuple[int, tuple[Fact, ...]]:
    for length in range(TERM_STARTS.get(words[at], 1), 1, -1):
        facts = term_facts(" ".join(words[at : at + length])) if at + length <= len(words) else None
        if facts is not None:
            return length, facts
    word = words[at]
    return 1, (("number", f"{float(word):g}"),) if word[0].isdigit() else term_facts(word) or ()
