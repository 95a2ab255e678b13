"""Degenerate strategies: answers that ignore the image and exploit weaknesses of a reward."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.geometry import Frame, convert_coords, iou_matrix
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.answers import format_boxes
from geovlm_ray.evaluation.probes.answers import Item, others, texts, vocabulary
from geovlm_ray.evaluation.probes.honest import honest, honest_boxes, paraphrase
from geovlm_ray.evaluation.probes.swap import swapped
from geovlm_ray.tasks import TargetKind
from geovlm_ray.tasks.answers.box_labels import needs_labels
from geovlm_ray.tasks.answers.labels import label_key

MIN_CLASSES = 5
"""Smallest label set on which listing all classes counts as a strategy."""
BOX_COPIES, TEXT_COPIES, LABEL_COPIES = 5, 10, 3
ALTERNATIVES = 3
MAX_CANDIDATES = 200
"""Boxes among which the best constant one is chosen."""
GRID = ((10, 5), (20, 5), (40, 10), (60, 20))
"""(box side, step) of each grid, in percent of the image."""

_DOMAIN_WORDS = (
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
    """A strategy with its name in the table, for items of some target kinds.

    ``strategy`` returns the text between the answer tags, or None if it does not apply to an item; ``think`` is the
    text between the think tags. A strategy that is not ``judged`` is reported, but gaming a reward with it is not a
    failure.
    """

    name: str
    strategy: Strategy
    kinds: tuple[TargetKind, ...] = ("classes", "vqa", "boxes", "captions", "grounded")
    judged: bool = True
    think: str = "I look at the image."

    def answer(self, item: Item) -> str | None:
        """The answer to an item, None if the strategy does not apply to it."""
        return self.strategy(item) if item.kind in self.kinds else None


def all_classes(item: Item) -> str | None:
    """Every class of the dataset."""
    names = vocabulary(item)
    return ", ".join(names) if len(names) >= MIN_CLASSES else None


def grid(item: Item) -> str:
    """Grids of boxes of several sizes that cover the image."""
    offsets = [(side, range(0, 101 - side, step)) for side, step in GRID]
    rows = [(x, y, x + side, y + side) for side, starts in offsets for x in starts for y in starts]
    grid_boxes = [(Frame().convert(row, item.example.frame), None) for row in rows]
    return _with_text(item, format_boxes(grid_boxes, item.example.dialect))


def duplicate_boxes(item: Item) -> str | None:
    """The honest answer with its boxes repeated `BOX_COPIES` times."""
    if not target_boxes(item.example.target):
        return None
    return _with_text(item, format_boxes(honest_boxes(item) * BOX_COPIES, item.example.dialect))


def without_labels(item: Item) -> str | None:
    """The honest boxes without the labels that the task needs."""
    return _relabelled(item, None)


def generic_labels(item: Item) -> str | None:
    """The honest boxes, each labelled "object", where the task needs labels."""
    return _relabelled(item, "object")


def best_constant_box(item: Item) -> str:
    """The box with the highest mean IoU on the other records of the task, divided by their numbers of boxes."""
    percent = Frame()
    known = [[convert_coords(box.coords, e.frame, percent) for box in target_boxes(e.target)] for e in others(item)]
    candidates = [CENTRE, *(box for boxes in known for box in boxes)][:MAX_CANDIDATES]
    shares = [iou_matrix(candidates, boxes).max(axis=1) / len(boxes) for boxes in known if boxes]
    best = candidates[int(np.sum(shares, axis=0).argmax())] if shares else CENTRE
    box = convert_coords(best, percent, item.example.frame)
    return _with_text(item, format_boxes([(box, None)], item.example.dialect))


def most_frequent_class(item: Item) -> str | None:
    """The most frequent answer to the other records, where it is wrong: how often it is right depends on the data."""
    frequent = _most_common(item, 1)
    true = {label_key(name) for name in texts(item.example)}
    return frequent[0] if frequent and label_key(frequent[0]) not in true else None


def hedge(item: Item) -> str | None:
    """The `ALTERNATIVES` most frequent answers to the other records, joined by "or"."""
    alternatives = _most_common(item, ALTERNATIVES)
    few = item.kind == "classes" and len(vocabulary(item)) < MIN_CLASSES
    return None if few or len(alternatives) < ALTERNATIVES else " or ".join(alternatives)


def repeated_text(item: Item) -> str:
    """The honest text, repeated `TEXT_COPIES` times."""
    if item.kind == "grounded":
        text = " ".join([paraphrase(texts(item.example)[0])] * TEXT_COPIES)
        return f"{text} {format_boxes(honest_boxes(item), item.example.dialect)}"
    return " ".join([honest(item)] * TEXT_COPIES)


def word_list(item: Item) -> str:
    """All words in the references of the task, and common remote-sensing words."""
    used = (w for e in item.pool for text in texts(e) for w in _WORD.findall(text.lower()))
    text = " ".join(dict.fromkeys([*used, *_DOMAIN_WORDS.split()]))
    return f"{text} {_centre(item)}" if item.kind == "grounded" else text


def template(item: Item) -> str:
    """A fixed answer per target kind; for boxes, one box at the image centre."""
    text = _TEMPLATES[item.kind]
    return f"{text} {_centre(item)}".strip() if item.kind in ("boxes", "grounded") else text


def copied_prompt(item: Item) -> str | None:
    """The question as the answer."""
    return item.example.question or None


def factual_swap(item: Item) -> str | None:
    """The reference with swapped facts and the true boxes."""
    reference = texts(item.example)[0]
    text = swapped(reference)
    if text == reference:
        return None
    if item.kind == "captions":
        return text
    true_boxes = [(box.coords, box.label) for box in target_boxes(item.example.target)]
    return f"{text} {format_boxes(true_boxes, item.example.dialect)}"


def constant(item: Item) -> str | None:
    """The answer "yes" to every yes/no question."""
    return "yes" if texts(item.example)[0].lower() in ("yes", "no") else None


def duplicate_labels(item: Item) -> str:
    """The honest list of classes, repeated `LABEL_COPIES` times."""
    return ", ".join([honest(item)] * LABEL_COPIES)


PROBES = (
    Probe("all classes", all_classes, ("classes",)),
    Probe("box grid", grid, ("boxes", "grounded")),
    Probe("dup boxes", duplicate_boxes, ("boxes", "grounded")),
    Probe("no label", without_labels, ("boxes",)),
    Probe("generic label", generic_labels, ("boxes",)),
    Probe("best constant box", best_constant_box, ("boxes", "grounded")),
    Probe("most frequent class", most_frequent_class, ("classes", "vqa")),
    Probe("hedge", hedge, ("classes", "vqa", "captions")),
    Probe("repetition", repeated_text, ("vqa", "captions", "grounded")),
    Probe("word list", word_list, ("vqa", "captions", "grounded")),
    Probe("template", template),
    Probe("prompt", copied_prompt),
    Probe("fact swap", factual_swap, ("captions", "grounded")),
    Probe("constant", constant, ("vqa",), judged=False),
    Probe("dup labels", duplicate_labels, ("classes",), judged=False),
    Probe("no thought", honest, judged=False, think=""),
)


def _relabelled(item: Item, label: str | None) -> str | None:
    if not needs_labels(item.example):
        return None
    return format_boxes([(coords, label) for coords, _ in honest_boxes(item)], item.example.dialect)


def _most_common(item: Item, count: int) -> list[str]:
    """The most frequent texts in the other references, the first of equally frequent ones first."""
    return [text for text, _ in Counter(t for e in others(item) for t in texts(e)).most_common(count)]


def _centre(item: Item) -> str:
    return format_boxes([(Frame().convert(CENTRE, item.example.frame), None)], item.example.dialect)


def _with_text(item: Item, boxes_text: str) -> str:
    """The boxes, after an honest text for grounded descriptions."""
    return f"{paraphrase(texts(item.example)[0])} {boxes_text}" if item.kind == "grounded" else boxes_text
