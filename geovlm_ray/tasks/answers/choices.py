"""Multiple-choice questions: the options of a question and the letter that an answer chooses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from geovlm_ray.tasks.answers.words import tokens

_OPTION = re.compile(r"(?:^|(?<=[\s(\[*]))([A-H])[).:]\s", re.MULTILINE)
_LETTER_ALONE = re.compile(r"[\W_]*([A-Ha-h])[\W_]*", re.ASCII)
_LETTER = re.compile(
    r"\(([A-Ha-h])\)|(?:^|(?<=[\s*:]))([A-H])(?=[).:*,]|\Z)|\b(?:option|choice|letter|answer is)\s([A-H])\b", re.I
)
_UPPER = re.compile(r"(?:^|(?<=[\s*\"]))([B-H])(?=[\s).:*,\"]|\Z)")
_SEVERAL = re.compile(r"\b([A-H])\W{0,3}\s?(?:or|and|/|,)\s?\W{0,3}([A-H])\b")
_NAME = r"\(?(?:\b[A-H]\b|\b[a-h]\b(?=\W*(?:[.,;:)]|\Z)))\)?"
_NAMES = rf"{_NAME}(?:\s?(?:or|nor|and|/)\s?{_NAME}){{0,7}}"
_DENIED_AFTER = re.compile(
    r"(?:\b(?:[Nn]ot|cannot|[Nn]ever|[Nn]either|nor|[Ee]xcept|excluding|instead of|rather than"
    r"|(?:[Aa]ny|[Ee]very)thing but)|n['’]t)"
    rf"\s(?:be\s)?(?:option\s|choice\s|letter\s)?{_NAMES}",
    re.ASCII,
)
_DENIED_BEFORE = re.compile(
    rf"{_NAMES}\s(?:cannot\b|(?:is|are|was|seems|can|could)\s?"
    r"(?:not\b|n['’]t\b|wrong|incorrect|false|excluded|ruled out))",
    re.ASCII,
)
_BETWEEN = re.compile(r"[,;/]\s*(?:and\s)?|\s(?:and|&)\s")
_ONE_LETTER = re.compile(r"\b[A-Ha-h]\b")
_AT_START = re.compile(r"\s*\**\(?([A-Ha-h])[).:]\**\s*(?=\S)")


def options(question: str) -> dict[str, str]:
    """Text of each option of a question by its letter, in lower case; empty unless the letters are a, b, ..."""
    marks = list(_OPTION.finditer(question))
    ends = [*(mark.start() for mark in marks), len(question)][1:]
    found = {m[1].lower(): question[m.end() : end].strip(" ,;\n([") for m, end in zip(marks, ends, strict=True)}
    return found if len(marks) >= 2 and "".join(found) == "abcdefgh"[: len(marks)] else {}


def chosen_letters(answer: str) -> list[str]:
    """Letters, in lower case and without duplicates, that an answer marks as its choice and does not deny."""
    alone = _LETTER_ALONE.fullmatch(answer)
    if alone:
        return [alone[1].lower()]
    found = [m[1] or m[2] or m[3] for m in _LETTER.finditer(answer) if m[1] or m[3] or m[2].isupper()]
    found += _UPPER.findall(answer)
    found += [letter for match in _SEVERAL.finditer(answer) for letter in match.groups()]
    denied = denied_letters(answer) if found else frozenset()
    return [letter for letter in dict.fromkeys(letter.lower() for letter in found) if letter not in denied]


def several_letters(text: str, known: Collection[str]) -> list[str]:
    """Letters, in lower case, of a text that lists several of the ``known`` options and nothing else: "A, C", "AC"."""
    words = [word for word in re.findall(r"[^\W_]+", text) if word.lower() != "and"]
    letters = list(words[0].lower()) if len(words) == 1 and words[0].isupper() else [word.lower() for word in words]
    return letters if len(letters) > 1 and len({*letters}) == len(letters) and {*letters} <= {*known} else []


def true_letters(truth: str, known: Mapping[str, str]) -> frozenset[str]:
    """Letters of the options that a truth chooses, by letters or by texts; empty unless it chooses several."""
    if not known:
        return frozenset()
    found = several_letters(truth, known) or [letter for letter in chosen_letters(truth) if letter in known]
    if len(found) < 2:
        parts = [tokens(part) for part in _BETWEEN.split(truth)]
        named = [key for part in parts for key, text in known.items() if tokens(text) == part]
        found = named if len(named) == len(parts) else []
    return frozenset(found) if len(found) > 1 else frozenset()


def denied_letters(answer: str) -> frozenset[str]:
    """Letters, in lower case, that an answer denies: "not B", "neither A nor C", "B is wrong"."""
    denials = [m[0] for pattern in (_DENIED_AFTER, _DENIED_BEFORE) for m in pattern.finditer(answer)]
    return frozenset(letter.lower() for denial in denials for letter in _ONE_LETTER.findall(denial))


def without_letter(answer: str) -> tuple[str | None, str]:
    """The letter before an option's text ("B. airport"), in lower case, and the text; None if there is none."""
    start = _AT_START.match(answer)
    return (start[1].lower(), answer[start.end() :]) if start else (None, answer)
