"""Whether a caption states that nothing has changed, in any of the usual wordings."""

from __future__ import annotations

from geovlm_ray.rewards.facts.terms import EXCEPTIONS, Term, clauses
from geovlm_ray.rewards.facts.vocabulary import AS_BEFORE_TERMS

_NEGATORS = frozenset(
    {"no", "not", "nothing", "none", "never", "without", "neither", "nor", "hardly", "barely", "scarcely"}
    | {"cannot", "hardly any", "lack of", "absence of"}
)
_SLIGHT = frozenset({"little", "minimal", "negligible", "insignificant", "a little"})
"""Words that deny a change that they precede: "little has changed", "negligible differences"."""
_CHANGED = frozenset(
    {"change", "changes", "changed", "changing", "difference", "differences", "differ", "differs", "different"}
    | {"differently", "altered", "alteration", "alterations", "modified", "modification", "modifications"}
    | {"transformation", "transformed", "variation", "variations", "discrepancy", "discrepancies", "alter"}
    | {"dissimilarity", "dissimilarities", "distinction", "distinctions", "deviation", "deviations"}
)
_DENIES = frozenset({"true", "case", "correct", "that"})
"""Words between two negations of which the second is denied: "it is not true that nothing has changed"."""
_HAPPENED = frozenset(
    {
        "happened",
        "occurred",
        "happens",
        "happen",
        "new",
        "construction",
        "demolition",
        "development",
        "built",
        "erected",
    }
    | {"constructed", "added", "removed", "demolished", "appeared", "disappeared", "torn down"}
)
"""Words that state a change only if they are not negated."""
_UNCHANGED = frozenset({"unchanged", "unaltered", "unmodified", "identical", "same", "alike", "indistinguishable"}) | {
    "equal",
    "equivalent",
}
_LEFT = frozenset({"untouched", "undisturbed"})
_STILL = frozenset({"intact", "stable", "constant", "static", "consistent", "similar"}) | _LEFT
"""Words that state no change together with one of `_REMAIN`."""
AS_BEFORE = frozenset(AS_BEFORE_TERMS.split(","))
_MATCH = frozenset({"match", "matches", "matched", "coincide", "equals"})
"""Words that state no change in a clause without an object: "the pictures match"."""
_REMAIN = frozenset(
    {"remain", "remains", "remained", "stay", "stays", "stayed", "kept", "keeps", "look", "looks", "appear", "appears"}
)
_LEAVE = frozenset({"left", "been", "is", "are", "was", "were"})
_VERBS = frozenset({"is", "are", "was", "were", "has", "have", "had", "been", "be", "do", "does", "did", "see", "show"})
_PREDICATE_FOLLOWS = frozenset(
    {"as", "before", "in", "to", "between", "across", "at", "with", "from", "after", "over", "for", "throughout", "and"}
    | {",", ".", ";", ":", "!", "?", "or", "but", "while", "except", "on", "during", "since", "through", "both"}
)
_SCENE = frozenset({"scene", "place", "area", "location", "region", "landscape", "image", "site"})
_ADJECTIVES = frozenset({"dry", "parched", "wind", "more", "less"})
"""Terms of change that also describe a scene that does not change."""
_SPLIT = (
    frozenset(",.;:!?") | {"but", "while", "although", "however", "and", "whereas", "though", "because"} | EXCEPTIONS
)
_EVIDENCE = _CHANGED | _UNCHANGED | _STILL | _HAPPENED | _MATCH | AS_BEFORE | {"nothing", "before", "still"}


def states_no_change(terms: list[Term]) -> bool:
    """Whether a text states that nothing has changed, and reports no change."""
    texts = {term.text for term in terms}
    if texts - set(",.;:!?") in ({"no"}, {"none"}, {"nothing"}):
        return True
    if texts.isdisjoint(_EVIDENCE):
        return False
    states = [state for clause in _verbal_clauses(terms) for state in _states(clause)]
    return False in states and True not in states


def _verbal_clauses(terms: list[Term]) -> list[list[Term]]:
    """Clauses with a verb: what precedes an "and" without one ("no houses and roads") belongs to the next clause."""
    found: list[list[Term]] = []
    verbal = True
    for clause in clauses(terms, _SPLIT):
        if clause[0].text == "and" and not verbal:
            found[-1] += clause
        else:
            found.append(clause)
            verbal = False
        verbal = verbal or any(map(_is_verb, clause))
    return found


def _is_verb(term: Term) -> bool:
    return term.text in _VERBS or term.text in _CHANGED or term.text in _UNCHANGED or bool(term.changes)


def _states(clause: list[Term]) -> list[bool]:
    """True for each change that the clause reports, False for each statement that there is none."""
    if clause[0].text in EXCEPTIONS and any(term.objects or term.changes for term in clause):
        return [True]
    negated, states = False, []
    texts = [term.text for term in clause]
    remains = not _REMAIN.isdisjoint(texts)
    seems = not (_CHANGED | _UNCHANGED | _STILL).isdisjoint(texts)
    for i, term in enumerate(clause):
        following = texts[i + 1] if i + 1 < len(texts) else "."
        if negated and term.text in _NEGATORS and not _DENIES.isdisjoint(texts[:i]):
            negated = False
        elif term.text in _NEGATORS or (term.text in _SLIGHT and following in _CHANGED | {"has", "have"}):
            negated = True
        elif term.text in _CHANGED and (negated or following not in ("from", "kinds", "types")):
            states.append(not negated)
        elif _is_same(term.text, texts[i - 1] if i else "", following, remains) or (
            term.text in _MATCH and not any(other.objects for other in clause)
        ):
            states.append(negated)
        elif negated and (term.text in _HAPPENED or (term.changes and "nothing" in texts)):
            states.append(False)
        elif not negated and term.changes and term.text not in _ADJECTIVES:
            states += [] if seems and term.text in _REMAIN else [True]
    return states


def _is_same(word: str, before: str, following: str, remains: bool) -> bool:
    """Whether a word says that something is as before; "the same roofs" and "identical houses" do not."""
    if word in _UNCHANGED:
        return word in ("unchanged", "unaltered", "unmodified") or following in _PREDICATE_FOLLOWS | _SCENE
    if word in ("before", "still"):
        return before in (("like", "as") if word == "before" else _REMAIN)
    if word in _LEFT and before in _LEAVE:
        return True
    return (word in _STILL and remains) or word in AS_BEFORE
