"""Degenerate strategies: answers that earn reward without looking at the image, if a reward lets them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from geovlm_ray.core.geometry import Frame
from geovlm_ray.data.answers import written
from geovlm_ray.evaluation.probes.answers import Item, boxes, texts, vocabulary
from geovlm_ray.evaluation.probes.honest import honest, honest_boxes, paraphrase
from geovlm_ray.evaluation.probes.swap import swapped
from geovlm_ray.tasks import TargetKind

MANY = 5
"""Listing fewer classes than these is no strategy to judge."""
BOX_COPIES, TEXT_COPIES, LABEL_COPIES = 5, 10, 3
GRID = ((10, 5), (20, 5), (40, 10), (60, 20))
"""Sides of the boxes of a grid, and the steps between them, in percent of the image."""

_SETTING = (
    "satellite image scene area with many several buildings houses road roads trees forest water river farmland field "
    "ship plane vehicle car parking lot green white red left right top bottom center one two three small large near "
    "beside changed built removed"
)
_WORD = re.compile(r"\w+")
_TEMPLATES: dict[TargetKind, str] = {
    "classes": "urban",
    "vqa": "It can be seen in the image.",
    "boxes": "",
    "captions": "a satellite image of an area with some buildings, roads and green trees",
    "grounded": "a satellite image of an area with some buildings, roads and green trees",
}
CENTRE = (25.0, 25.0, 75.0, 75.0)

Strategy = Callable[[Item], str | None]


@dataclass(frozen=True)
class Probe:
    """A strategy by the name in the table; ``judged`` where a reward that pays for it is broken.

    ``answer`` gives the text between the answer tags, or None where the strategy does not apply to an item.
    """

    name: str
    answer: Strategy
    judged: bool = True
    think: str = "I look at the image."


def all_classes(item: Item) -> str | None:
    """Every class of the dataset."""
    if item.kind != "classes":
        return None
    names = vocabulary(item)
    return ", ".join(names) if len(names) >= MANY else None


def grid(item: Item) -> str | None:
    """Boxes of several sizes all over the image."""
    if item.kind not in ("boxes", "grounded"):
        return None
    places = [(side, range(0, 101 - side, step)) for side, step in GRID]
    rows = [(x, y, x + side, y + side) for side, row in places for x in row for y in row]
    found = [(Frame().convert(row, item.example.frame), None) for row in rows]
    return _with_text(item, written(found, item.example.dialect))


def duplicate_boxes(item: Item) -> str | None:
    """An honest answer with each of its boxes several times."""
    if not boxes(item.example):
        return None
    return _with_text(item, written(honest_boxes(item) * BOX_COPIES, item.example.dialect))


def repeated_text(item: Item) -> str | None:
    """An honest text, again and again."""
    if item.kind in ("classes", "boxes"):
        return None
    if item.kind == "grounded":
        text = " ".join([paraphrase(texts(item.example)[0])] * TEXT_COPIES)
        return f"{text} {written(honest_boxes(item), item.example.dialect)}"
    return " ".join([honest(item)] * TEXT_COPIES)


def word_list(item: Item) -> str | None:
    """All the words that references of the task use, and those of the field."""
    if item.kind in ("classes", "boxes"):
        return None
    used = (w for e in item.pool for text in texts(e) for w in _WORD.findall(text.lower()))
    text = " ".join(dict.fromkeys([*used, *_SETTING.split()]))
    return f"{text} {_centre(item)}" if item.kind == "grounded" else text


def template(item: Item) -> str | None:
    """One answer that needs no image; for boxes the middle of it."""
    text = _TEMPLATES[item.kind]
    return f"{text} {_centre(item)}".strip() if item.kind in ("boxes", "grounded") else text


def copied_prompt(item: Item) -> str | None:
    """The question itself."""
    return item.example.question or None


def factual_swap(item: Item) -> str | None:
    """A reference with its facts exchanged, the boxes as they are."""
    if item.kind not in ("captions", "grounded"):
        return None
    reference = texts(item.example)[0]
    text = swapped(reference)
    if text == reference:
        return None
    if item.kind == "captions":
        return text
    return f"{text} {written([(b.coords, b.label) for b in boxes(item.example)], item.example.dialect)}"


def constant(item: Item) -> str | None:
    """The same answer to every binary question."""
    return "yes" if item.kind == "vqa" and texts(item.example)[0].lower() in ("yes", "no") else None


def duplicate_labels(item: Item) -> str | None:
    """An honest list of classes, several times."""
    return ", ".join([honest(item)] * LABEL_COPIES) if item.kind == "classes" else None


PROBES = (
    Probe("all classes", all_classes),
    Probe("box grid", grid),
    Probe("dup boxes", duplicate_boxes),
    Probe("repetition", repeated_text),
    Probe("word list", word_list),
    Probe("template", template),
    Probe("prompt", copied_prompt),
    Probe("fact swap", factual_swap),
    Probe("constant", constant, judged=False),
    Probe("dup labels", duplicate_labels, judged=False),
    Probe("no thought", honest, judged=False, think=""),
)


def _centre(item: Item) -> str:
    return written([(Frame().convert(CENTRE, item.example.frame), None)], item.example.dialect)


def _with_text(item: Item, found: str) -> str:
    """Boxes after an honest text, where the answer has one."""
    return f"{paraphrase(texts(item.example)[0])} {found}" if item.kind == "grounded" else found
