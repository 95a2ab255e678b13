"""The one quantity that an answer states: a number, the sum of its parts, or "no ships" and "a ship" in words."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from geovlm_ray.tasks.answers.class_names import other_names
from geovlm_ray.tasks.answers.hedges import is_unsure
from geovlm_ray.tasks.answers.measures import NOT_NOUNS, Quantity, is_number, quantities
from geovlm_ray.tasks.answers.phrases import MODIFIERS, SKIPPED
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, SENTENCE, word_set

ZERO_WORDS = word_set("none nil")
_NEGATED = word_set("not cannot never neither nor rather instead unlike excluding")
_MIN_COUNTED = 3
_NEGATION_WORDS = 3
"""Words before a number among which a negation denies it ("do not see exactly 3")."""
_PHRASE_WORDS = 5
_DENIALS = word_set("not cannot never")
_WITHOUT = word_set("no without")
_DETERMINERS = word_set("any a an the such")
_SEEN = _DETERMINERS | word_set(
    "see find detect spot identify observe contain show have include feature depict exist appear visible present seen "
    "found detected identified observed shown"
)
_OBJECT_ENDS = NOT_NOUNS - _DETERMINERS - {"of", "visible", "present", "seen"}
_COLLECTIVES = word_set(
    "few lot number group bunch handful variety row cluster fleet series range collection amount multitude pair couple"
)
"""Nouns that an article does not make a single object."""
_COUNTING = word_set("many count")
_PARTS_OF = tuple([word] for word in ("which", "them", "these", "those", "whom"))
_PREDICATES = word_set("in on at near to along by with next beside is are was were")
_JOINS = frozenset((COMMA, "and", "plus", "+"))
_TIMES_COMPARED = word_set("before after first second earlier later previously now then")


def counted_nouns(question: Sequence[str]) -> list[str]:
    """The words for what a question counts ("how many SHIPS are in the harbor"); else all its content words."""
    pairs = [*itertools.pairwise(question)]
    start = next((i + 1 for i, (a, b) in enumerate(pairs) if a in _COUNTING or (a, b) == ("number", "of")), 0)
    phrase = _phrase(question, start, _OBJECT_ENDS) if start else list(question)
    return [word for word in phrase if word not in SKIPPED and word not in _COUNTING]


def names_of(words: Collection[str]) -> frozenset[str]:
    """Words and their synonyms, each joined to one word."""
    return frozenset().union(*map(other_names, words))


def stated_quantity(words: Sequence[str], context: Collection[str]) -> Quantity | None:
    """The one quantity that an answer states; None if it states none or several.

    Negated ones ("not 3") are not stated. Of several, the one whose noun is in ``context``, the words of the question,
    or the total of the others. Without a number, "none", "no ships" and "not one ship" are 0, and "a ship" is 1.
    """
    every = quantities(words)
    if not every:
        return _number_without_digits(words, frozenset(context) - MODIFIERS)
    found = every if _NEGATED.isdisjoint(words) else [q for q in every if not _is_negated(words, q)]
    found = _with_nouns(found, words) if len(found) > 1 else found
    found = _without_counting(found) if len(found) >= _MIN_COUNTED else found
    return _stated_of(found, words, context) if found else _not_one(every, words)


def _not_one(denied: list[Quantity], words: Sequence[str]) -> Quantity | None:
    """0 for "not one ship", with its unit and noun; None for other denied quantities."""
    first = denied[0]
    is_none = len(denied) == 1 and first.low == 1 and words[first.start - 1 : first.start] == ["not"]
    return first._replace(low=0.0, high=0.0) if is_none else None


def _stated_of(found: list[Quantity], words: Sequence[str], context: Collection[str]) -> Quantity | None:
    """The one of the stated quantities that answers the question; None if several may."""
    if len(found) == 1 or [q[:3] for q in found] == [found[0][:3]] * len(found):
        return found[0]
    if "or" in words[found[0].end : found[-1].start]:
        return None
    asked = [q for q in found if q.noun and q.noun[-1] in context]
    if len(asked) > 1:
        hits = [sum(word in context for word in q.noun) for q in asked]
        asked = [q for q, n in zip(asked, hits, strict=True) if n == max(hits)]
    if asked and all(q[:2] == asked[0][:2] for q in asked):
        return asked[0]
    total = sum(q.low for q in found)
    whole = next((q for q in (found[0], found[-1]) if len(found) > 2 and 2 * q.low == total), None)
    if whole or len(asked) < len(found) or not _are_parts(found, words):
        return whole
    return asked[0]._replace(low=total, high=total)


def _with_nouns(found: list[Quantity], words: Sequence[str]) -> list[Quantity]:
    """The quantities without parts of others ("2 of them"); "3 on the right" counts what "2 ships on the left" does."""
    wholes = [q for q in found if words[q.end : q.end + 1] != ["of"] or words[q.end + 1 : q.end + 2] not in _PARTS_OF]
    if not wholes:
        return found
    kept = wholes[:1]
    for q in wholes[1:]:
        before = words[kept[-1].end + len(kept[-1].noun) : q.start]
        bare = not q.noun and q.unit is None and q.end < len(words) and words[q.end] in _PREDICATES
        placed = any(word not in SKIPPED and word not in _JOINS for word in before)
        kept.append(q._replace(noun=kept[-1].noun) if bare and placed and before[-1] in _JOINS else q)
    return kept


def _are_parts(found: list[Quantity], words: Sequence[str]) -> bool:
    """Whether the counts of one sentence add up: "2 ships on the left and 3 on the right"."""
    if SENTENCE in words[found[0].start : found[-1].start] or not _TIMES_COMPARED.isdisjoint(words):
        return False
    return all(q.low == q.high and q.unit is None for q in found) and all(
        words[q.start - 1] in _JOINS for q in found[1:]
    )


def _is_negated(words: Sequence[str], quantity: Quantity) -> bool:
    """Whether a negation in the same clause precedes a quantity: "not 3", "rather than 3"."""
    for i in range(quantity.start - 1, max(quantity.start - 1 - _NEGATION_WORDS, -1), -1):
        if words[i] in DELIMITERS or words[i] in ("but", "only") or is_number(words[i]):
            return False
        if words[i] in _NEGATED:
            return True
    return False


def _without_counting(found: list[Quantity]) -> list[Quantity]:
    """The quantities without a first "1, 2, 3" that counts objects up; none if there are no others."""
    counted = 0
    while counted < len(found) and found[counted].low == counted + 1 and not found[counted].noun:
        counted += 1
    return found[counted:] if counted >= _MIN_COUNTED else found


def _number_without_digits(words: Sequence[str], context: frozenset[str]) -> Quantity | None:
    """0 for "no ships" and "I do not see any", 1 for "a ship"; None unless a word of ``context`` is counted."""
    if is_unsure(words):
        return None
    for i, word in enumerate(words):
        if word in ZERO_WORDS or (word in _DENIALS and _denies_sight(words, i, context)):
            return Quantity(0.0, 0.0)
        if word in _WITHOUT and not context.isdisjoint(phrase := _phrase(words, i + 1, _OBJECT_ENDS)):
            return Quantity(0.0, 0.0, None, tuple(phrase[-1:]))
    for i, word in enumerate(words):
        if word in ("a", "an", "single"):
            phrase = _phrase(words, i + 1, NOT_NOUNS)
            if not context.isdisjoint(phrase) or not _COLLECTIVES.isdisjoint(phrase):
                return Quantity(1.0, 1.0) if _COLLECTIVES.isdisjoint(phrase) else None
    return None


def _phrase(words: Sequence[str], start: int, ends: Collection[str]) -> list[str]:
    """The first words at a position before one of ``ends``."""
    end = start
    while end < min(start + _PHRASE_WORDS, len(words)) and words[end] not in ends:
        end += 1
    return list(words[start:end])


def _denies_sight(words: Sequence[str], start: int, context: frozenset[str]) -> bool:
    """Whether a negation denies that what is counted is there or is seen: "ships are not visible", "I see none"."""
    near = range(start + 1, min(start + 1 + _NEGATION_WORDS, len(words)))
    seen = next((i for i in near if words[i] in _SEEN), None)
    if seen is None:
        return not context.isdisjoint(words[start + 1 : start + 2])
    counted = _phrase(words, seen + 1, _OBJECT_ENDS)
    if any(word not in _DETERMINERS for word in counted):
        return not context.isdisjoint(counted)
    before = words[max(0, start - _PHRASE_WORDS) : start]
    return not start or "any" in (words[seen], *counted) or not context.isdisjoint(before)
