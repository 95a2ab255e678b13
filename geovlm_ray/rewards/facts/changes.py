"""What a caption says was gained, lost, flooded, dried or damaged."""

from __future__ import annotations

from collections.abc import Iterator

from geovlm_ray.rewards.facts.terms import SENTENCE_ENDS, Term, clauses

_NEGATORS = frozenset({"no", "not", "nothing", "none", "never", "without", "neither", "nor", "cannot"})
_AUXILIARIES = frozenset({"is", "are", "was", "were", "been", "be", "being", "has", "have", "had", "got", "gets"})
_LOCATION = frozenset(
    {"on", "in", "at", "near", "beside", "by", "next", "along", "behind", "around", "from", "over", "under", "between"}
    | {"among", "across", "onto", "inside", "within", "through", "to"}
)
_ADJECTIVES = frozenset({"new", "newly", "more", "fewer", "less", "additional"})
"""Terms of change that describe the object after them."""
_REPLACE = frozenset({"replaced", "replaces", "replace", "replacing"})
_CONVERT = frozenset(
    {"converted", "turned", "transformed", "changed", "developed", "torn down", "demolished", "turns", "completed"}
)
_GIVE_WAY = frozenset({"give", "gives", "gave", "given", "make", "makes", "made"})
_BECOME = frozenset({"become", "became", "becomes", "becoming"})
_MARKERS = _REPLACE | _CONVERT | _GIVE_WAY | _BECOME | {"place", "instead"}
_SENTENCE_ENDS = SENTENCE_ENDS | {",", "while", "but"}


def changes(terms: list[Term]) -> Iterator[tuple[str, str]]:
    """Yield (change, object) of each change that a text reports; the object is "" if none is named."""
    if not any(term.changes or term.text in _MARKERS for term in terms):
        return
    for sentence in clauses(terms, _SENTENCE_ENDS):
        replacement = _replacement(sentence)
        if replacement:
            at, before, after = replacement
            yield from ((before, name) for name in _unlocated(sentence[:at]) or [""])
            yield from ((after, name) for name in _unlocated(sentence[at + 2 :]) or [""])
        else:
            for clause in clauses(sentence):
                yield from _events(clause)


def _replacement(sentence: list[Term]) -> tuple[int, str, str] | None:
    """Index of the words of a replacement, and the changes of what is named before and after them."""
    texts = [term.text for term in sentence]
    if not _NEGATORS.isdisjoint(texts):
        return None
    for i, (word, following) in enumerate(zip(texts, [*texts[1:], ""], strict=True)):
        if word in _REPLACE:
            return (i, "loss", "gain") if following in ("by", "with") else (i - 1, "gain", "loss")
        if (word in _CONVERT and following in ("into", "to", "in")) or (word in _GIVE_WAY and following == "way"):
            return i, "loss", "gain"
        if word in _BECOME and any(term.objects for term in sentence[i + 1 : i + 4]):
            return i - 1, "loss", "gain"
        if (word, following) in (("place", "of"), ("instead", "of")):
            return i, "gain", "loss"
    return None


def _events(clause: list[Term]) -> Iterator[tuple[str, str]]:
    """Changes in a clause without a replacement.

    A change describes the objects before it that are no place; the next object if there are none, after "to" and as an
    adjective; both in the active voice ("the river flooded the fields").
    """
    if not any(term.changes for term in clause):
        return
    following = _following(clause)
    subjects: dict[str, None] = {}  # in their order, each once
    located = passive = negated = False
    for i, term in enumerate(clause):
        names = term.objects
        subjects |= {} if located else dict.fromkeys(names)
        located = term.text in _LOCATION or (located and not names and term.text not in _AUXILIARIES)
        passive |= term.text in _AUXILIARIES
        negated |= term.text in _NEGATORS
        for change in () if negated else term.changes:
            ahead = term.text in _ADJECTIVES or not subjects or clause[i - 1].text == "to"
            with_object = i + 1 < len(clause) and clause[i + 1].text == "with"
            described = [] if ahead else list(subjects)
            if ahead or with_object or not passive:
                described = [*described, *following[i + with_object]]
            yield from ((change, name) for name in described or [""])


def _following(clause: list[Term]) -> list[tuple[str, ...]]:
    """For each index, the next object after it, unless a word of place stands between; one more entry at the end."""
    found: list[tuple[str, ...]] = [(), ()]
    for term in reversed(clause):
        names = term.objects
        found.append(names[:1] or (() if term.text in _LOCATION else found[-1]))
    return found[::-1][1:]


def _unlocated(part: list[Term]) -> list[str]:
    """Objects that a part of a sentence is about, without the places where they are."""
    objects: list[str] = []
    located = False
    for term in part:
        names = term.objects
        objects += () if located else names
        located = term.text in _LOCATION or (located and not names and term.text not in _AUXILIARIES)
    return objects
