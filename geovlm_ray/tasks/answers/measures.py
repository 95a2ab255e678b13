"""Numbers in the tokens of a text, with their units, their bounds and the nouns that they count.

Units are compared by name and never converted: "10 m" equals "10 metres", not "0.01 km".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, LINE, RANGE, SENTENCE, word_set

UNITS = {
    spelling: names.split()[0]
    for names in (
        *("m meter mtr", "km kilometer kms", "cm centimeter", "mm millimeter", "ft foot feet", "mile mi", "yard yd"),
        *("m2 sqm", "km2 sqkm", "cm2", "ft2 sqft", "m3", "ha hectare", "acre", "% percent pct", "° degree deg"),
        *("px pixel", "kg kilogram", "ton", "h hour hr", "s second sec", "mph", "kmh kph", "year", "day", "month"),
    )
    for spelling in names.split()
}
"""Spellings of units, in the normal form of `geovlm_ray.tasks.answers.words`, and the unit of each."""

_RATES = {"km/h": "kmh", "mile/h": "mph"}
_TIMES = frozenset(("h", "s", "day", "month", "year"))
_PER = frozenset(("per", "a", "an", COMMA))
_NUMBER_STARTS = frozenset("0123456789-.")
_SQUARE = word_set("square sq")
_MULTIPLIERS = {"hundred": 100.0, "thousand": 1e3, "million": 1e6, "dozen": 12.0, "billion": 1e9, "k": 1e3}
_FACTORS = {"half": 0.5, "dozen": 12.0, "pair": 2.0, "couple": 2.0, "hundred": 100.0, "thousand": 1e3, "million": 1e6}
_SIGNS = word_set("minus negative")
_ABOVE = word_set("more greater over above exceeding exceed exceeds > larger higher least beyond upward")
_BELOW = word_set("less under below fewer < smaller lower most up within")
_INCLUSIVE = word_set("least most up within")
_AT_LEAST = word_set("+ more greater above over higher larger plus")
_AT_MOST = word_set("less fewer below under lower smaller")
_PREPOSITIONS = word_set("over above exceeding exceed exceeds > under below < least most within beyond")
_BOUNDS_AFTER = frozenset(("or", "and", "+"))
_LINKS = word_set("than at to of")
_ORDINALS = word_set("st nd rd th")
NOT_NOUNS = DELIMITERS | word_set(
    "in on at of the a an is are was were and or to be with from by for that which there visible total = ± "
    "approximately about around roughly than not no only but so per can have located present seen this it"
)
"""Words after a number that end the noun that it counts."""
_NOUN_WORDS = 3


class Quantity(NamedTuple):
    """A number (``low`` equals ``high``) or a range, open at infinity; its unit; the noun that it counts."""

    low: float
    high: float
    unit: str | None = None
    noun: tuple[str, ...] = ()
    start: int = 0
    end: int = 0

    def agrees(self, truth: Quantity) -> bool:
        """Whether it states the truth: the same number, range and unit; a number inside a true range does too.

        A missing unit or noun is no contradiction.
        """
        if self.unit != truth.unit and self.unit and truth.unit and max(abs(self.low), abs(truth.low)) > 0:
            return False
        if self.noun and truth.noun and self.noun[-1] not in truth.noun and truth.noun[-1] not in self.noun:
            return False
        if truth.low == truth.high or self.low != self.high:
            return math.isclose(self.low, truth.low) and math.isclose(self.high, truth.high)
        return truth.low <= self.low <= truth.high


def quantities(words: Sequence[str]) -> list[Quantity]:
    """The quantities in the tokens of a text (`geovlm_ray.tasks.answers.words.tokens`), in order.

    Numbers of list items and ordinals are none.
    """
    found: list[Quantity] = []
    i, enumerated = 0, LINE in words and _is_enumerated(words)
    while i < len(words):
        word = words[i]
        if (word[0] in _NUMBER_STARTS and word != SENTENCE) or word in _FACTORS:
            item = enumerated and (i == 0 or words[i - 1] == LINE)
            if not item and (i + 1 == len(words) or words[i + 1] not in _ORDINALS):
                found.append(_quantity(words, i))
                i = found[-1].end
                continue
        i += 1
    return found


def whole_quantity(words: Sequence[str], filler: Collection[str]) -> Quantity | None:
    """The quantity that a text consists of, with its unit or noun and ``filler``; None if it is another text."""
    found = quantities(words)
    if len(found) != 1:
        return None
    (quantity,) = found
    rest = [*words[: quantity.start], *words[quantity.end + len(quantity.noun) :]]
    return quantity if all(word in filler or word in DELIMITERS for word in rest) else None


def is_number(word: str) -> bool:
    """Whether a token is a number in digits."""
    return word[0] in _NUMBER_STARTS and word != SENTENCE


def _is_enumerated(words: Sequence[str]) -> bool:
    """Whether several lines start with a number."""
    return sum(is_number(w) and (i == 0 or words[i - 1] == LINE) for i, w in enumerate(words)) > 1


def _quantity(words: Sequence[str], start: int) -> Quantity:
    """The quantity whose number starts at a position, with the words around it that bound it."""
    value, end = _value(words, start)
    unit, end = _unit(words, end)
    first, before = start, words[start - 1] if start else ""
    if before in _SIGNS:
        value, first = -value, start - 1
    low = high = value
    joins = words[end] if end + 1 < len(words) else ""
    if (joins == RANGE or (joins == "and" and before == "between")) and is_number(words[end + 1]):
        high, end = _value(words, end + 1)
        second, end = _unit(words, end)
        unit = second or unit
        first -= before in ("between", "from")
    else:
        low, high, first, end = _bounded(words, value, first, end)
    last = end
    while last < min(end + _NOUN_WORDS, len(words)) and not (words[last] in NOT_NOUNS or is_number(words[last])):
        last += 1
    return Quantity(low, high, unit, tuple(words[end:last]), first, end)


def _bounded(words: Sequence[str], value: float, first: int, end: int) -> tuple[float, float, int, int]:
    """Bounds of a number that "more than", "at least", "or less" and the like make a range of."""
    if not first and (end >= len(words) or words[end] not in _BOUNDS_AFTER):
        return value, value, first, end
    i = first - 1
    while i >= 0 and words[i] in _LINKS and first - i < 3:
        i -= 1
    sign = words[i] if i >= 0 else ""
    linked = first - 1 - i > 0 or sign in _PREPOSITIONS
    if linked and (sign in _ABOVE or sign in _BELOW):
        denied = i > 0 and words[i - 1] in ("no", "not")
        is_strict = not denied and sign not in _INCLUSIVE
        above, below = (math.nextafter(value, side) if is_strict else value for side in (math.inf, -math.inf))
        low, high = (above, math.inf) if (sign in _ABOVE) != denied else (-math.inf, below)
        return low, high, i - denied, end
    after = end + 1 if end < len(words) and words[end] in ("or", "and") else end
    sign = words[after] if after < len(words) else ""
    if sign in _AT_LEAST and (after > end or sign == "+"):
        return value, math.inf, first, after + 1
    if sign in _AT_MOST and after > end:
        return -math.inf, value, first, after + 1
    return value, value, first, end


def _value(words: Sequence[str], start: int) -> tuple[float, int]:
    """The number at a position, of one or several words ("two hundred and five"), and the position after it."""
    if words[start] in _FACTORS:
        return _FACTORS[words[start]], start + 1 + (words[start + 1 : start + 2] in (["a"], ["an"]))
    total, value, end, is_spelled = 0.0, float(words[start]), start + 1, False
    if end == len(words) or not (words[end] in _MULTIPLIERS or is_number(words[end]) or words[end] == "and"):
        return value, end
    while end < len(words):
        factor = _MULTIPLIERS.get(words[end])
        if factor is not None:
            value, end, is_spelled = value * factor, end + 1, True
            if factor >= 1000:
                total, value = total + value, 0.0
            continue
        after = end + 1 if words[end] == "and" and words[end - 1] in _MULTIPLIERS else end
        following = words[after] if after < len(words) else ""
        # "Twenty one", "one hundred twenty one"; but "120 1" are two numbers.
        tens = value % 100 >= 20 and value % 10 == 0 and len(following) == 1 and (value < 100 or is_spelled)
        if not (following.isdecimal() and len(following) <= 3 and (tens or words[end - 1] in _MULTIPLIERS)):
            break
        value, end = value + int(following), after + 1
    return total + value, end


def _unit(words: Sequence[str], end: int) -> tuple[str | None, int]:
    """The unit at a position, which may be a rate ("km/h", "metres per second"), and the position after it."""
    unit, end = _plain_unit(words, end)
    if unit and end + 1 < len(words) and words[end] in _PER and UNITS.get(words[end + 1]) in _TIMES:
        rate = f"{unit}/{UNITS[words[end + 1]]}"
        return _RATES.get(rate, rate), end + 2
    return unit, end


def _plain_unit(words: Sequence[str], end: int) -> tuple[str | None, int]:
    if end >= len(words):
        return None, end
    if words[end] in _SQUARE and end + 1 < len(words) and words[end + 1] in UNITS:
        return f"{UNITS[words[end + 1]]}2", end + 2
    unit = UNITS.get(words[end])
    if unit and end + 1 < len(words) and words[end + 1] == "squared":
        return f"{unit}2", end + 2
    return unit, end + (unit is not None)
