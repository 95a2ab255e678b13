"""Layouts of EarthDial's result files, by evaluation folder.

A file is JSON lines with string values: ``question``, the model's ``answer`` and the references. In
``rs_change_detection``, the file name determines the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.evaluation.metrics import earthdial
from geovlm_ray.evaluation.metrics.earthdial_boxes import BoxPairs, read_boxes
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.tasks.answers.box_dialects import parse_boxes
from geovlm_ray.tasks.answers.labels import parse_labels

Record = Mapping[str, str]
Records = Sequence[Record]

CAPTIONS = ("caption0", "caption1", "caption2", "caption3", "caption4")


@dataclass(frozen=True)
class Layout:
    """Layout of a result file.

    ``keys`` are required in every record; ``values`` lists the allowed values of some keys. ``paper`` computes the
    ``paper`` metrics; ``task`` and ``target`` define the example for the ``sound`` metrics; ``group`` is the key of the
    object size or question type.
    """

    task: str
    keys: tuple[str, ...]
    paper: Callable[[Records], dict[str, float]]
    target: Callable[[Record], Target]
    group: str | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def answered_example(self, record: Record, number: int) -> AnsweredExample:
        """Convert a record."""
        example = Example(str(number), self.task, (), record.get("question", ""), self.target(record))
        return AnsweredExample(record["answer"], example, record[self.group] if self.group else None)


def layout(folder: str, stem: str) -> Layout:
    """The layout of a result file in an evaluation folder such as ``rs_detection``.

    ``stem`` is the file name without suffix; only used for ``rs_change_detection``.

    Raises:
        DataError: the folder is unknown, or the stem matches no layout.
    """
    if folder in LAYOUTS:
        return LAYOUTS[folder]
    if folder != CHANGE_FOLDER:
        known = ", ".join([*LAYOUTS, CHANGE_FOLDER])
        raise DataError(f"task {folder!r}: expected an evaluation folder of EarthDial, one of {known}")
    for found, words in CHANGE_LAYOUTS.values():
        if any(word in stem.lower() for word in words):
            return found
    known = "; ".join(f"{kind}: {', '.join(words)}" for kind, (_, words) in CHANGE_LAYOUTS.items())
    raise DataError(f"file {stem!r} of {CHANGE_FOLDER}: expected a name that contains one of these words ({known})")


def _column(records: Records, key: str) -> list[str]:
    return [record[key] for record in records]


def _box_target(text: str) -> tuple[Box, ...]:
    parsed = parse_boxes(text)
    return tuple(Box(coords) for coords in parsed.boxes) if parsed else ()


def _change_references(record: Record) -> list[str]:
    """The first caption if the second is empty, else all five, as in the change captioning script."""
    return [record[key] for key in (CAPTIONS if record["caption1"] else CAPTIONS[:1])]


def _box_pairs(records: Records, key: str, length: int | None = None) -> BoxPairs:
    return [(read_boxes(r["answer"], length), read_boxes(r[key], length)) for r in records]


def _classification(task: str, key: str) -> Layout:
    return Layout(
        task,
        ("answer", key),
        lambda records: earthdial.classification(_column(records, "answer"), _column(records, key)),
        lambda record: tuple(parse_labels(record[key])),
    )


def _grounded(records: Records) -> dict[str, float]:
    boxes = _box_pairs(records, "obj_ids", 5)
    kept = [r for r in records if len(read_boxes(r["groundtruth"], 5)) < earthdial.GROUNDING_BOX_LIMIT]
    answers, references = (
        [earthdial.description_words(t) for t in _column(kept, k)] for k in ("answer", "groundtruth")
    )
    return earthdial.grounding(boxes) | earthdial.region_captions(answers, references)


LAYOUTS: dict[str, Layout] = {
    "rs_classification": _classification("multilabel_classification", "annotation"),
    "rs_vqa": Layout(
        "vqa",
        ("answer", "annotation", "vqa_type"),
        lambda records: earthdial.vqa(*(_column(records, key) for key in ("answer", "annotation", "vqa_type"))),
        lambda record: record["annotation"],
        group="vqa_type",
    ),
    "rs_detection": Layout(
        "referred_object_detection",
        ("answer", "gt_bbox", "size_group"),
        lambda records: earthdial.detection(_box_pairs(records, "gt_bbox"), _column(records, "size_group")),
        lambda record: _box_target(record["gt_bbox"]),
        group="size_group",
        values={"size_group": earthdial.SIZES},
    ),
    "rs_region_captioning": Layout(
        "region_captioning",
        ("answer", "annotation"),
        lambda records: earthdial.region_captions(_column(records, "answer"), _column(records, "annotation")),
        lambda record: (record["annotation"],),
    ),
    "rs_image_caption": Layout(
        "image_captioning",
        ("answer", *CAPTIONS),
        lambda records: earthdial.captions(_column(records, "answer"), [[r[k] for k in CAPTIONS] for r in records]),
        lambda record: tuple(record[key] for key in CAPTIONS),
    ),
    "rs_grounding_description": Layout(
        "grounded_description",
        ("answer", "groundtruth", "obj_ids"),
        _grounded,
        lambda record: GroundedText(record["groundtruth"], _box_target(record["obj_ids"])),
    ),
}

CHANGE_FOLDER = "rs_change_detection"
CHANGE_LAYOUTS: dict[str, tuple[Layout, tuple[str, ...]]] = {
    "captions": (
        Layout(
            "change_captioning",
            ("answer", *CAPTIONS),
            lambda records: earthdial.captions(_column(records, "answer"), list(map(_change_references, records))),
            lambda record: tuple(_change_references(record)),
        ),
        ("caption", "dubai", "levir", "muds", "sysu"),
    ),
    "boxes": (
        Layout(
            "referred_object_detection",
            ("answer", "caption0"),
            lambda records: earthdial.change_detection(_box_pairs(records, "caption0")),
            lambda record: _box_target(record["caption0"]),
        ),
        ("detection",),
    ),
    "classes": (_classification("temporal_classification", "caption0"), ("fmow", "cls", "testset", "classification")),
}
"""Layouts of `CHANGE_FOLDER`, and the words of which a file name contains one."""
