"""Numbers of several words as one number in digits: "twenty-five", "two hundred and ten"."""

from __future__ import annotations

from geovlm_ray.tasks.answers.words import NUMBERS

_SMALL = {word: int(value) for word, value in NUMBERS.items()}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
_TENS = frozenset(word for word, value in _SMALL.items() if value >= 20)
_BEFORE_SMALL, _BEFORE_AND = _SCALES.keys() | {"and"}, ("hundred", "thousand")
_STARTS = _TENS | _SCALES.keys()


def with_numerals(words: list[str]) -> list[str]:
    """Lower-case words with each number of several words in digits; other words, also "twenty", stay as they are."""
    if _STARTS.isdisjoint(words):
        return words
    found: list[str] = []
    i = 0
    while i < len(words):
        value, end = _number(words, i)
        found.append(f"{value:g}" if end > i + 1 else words[i])
        i = end
    return found


def _number(words: list[str], start: int) -> tuple[float, int]:
    """The number that begins at an index and the index after it; (0, the next index) for other words."""
    total, part, end = 0.0, 0.0, start
    while end < len(words):
        word, before = words[end], words[end - 1] if end > start else ""
        following = words[end + 1] if end + 1 < len(words) else ""
        if word in _SCALES and before:
            scale = _SCALES[word]
            total, part = (total + part * scale, 0.0) if scale >= 1000 else (total, part * scale)
        elif word in _SMALL and (not before or before in _BEFORE_SMALL or (before in _TENS and _SMALL[word] < 10)):
            part += _SMALL[word]
        elif word[0].isdecimal() and not before:
            part = float(word)
        elif not (word == "and" and before in _BEFORE_AND and following in _SMALL):
            break
        end += 1
    return total + part, max(end, start + 1)
