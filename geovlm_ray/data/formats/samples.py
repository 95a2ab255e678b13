"""The generic format for custom data: JSON lines ``{"id", "task", "images", "prompt", "reference"}``.

References are written as in published datasets: boxes as text, classes as a string or a list. Boxes are in percent,
unless a record states its ``frame``. Records without a reference are skipped, because they cannot be trained on. A null
counts as absent; a misspelled key is an error, and other unknown keys are named in the summary of the conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError, expected_one_of
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.box_frames import FRAME_OPTIONS, FRAMES, RawRow, framed, settle_frame
from geovlm_ray.data.formats.prompts import question_of
from geovlm_ray.data.formats.record_fields import check_spelling, optional_text, positive_number, split_of
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.references import single_class
from geovlm_ray.data.formats.streams import json_units
from geovlm_ray.data.records import frame_from_json, target_from_json
from geovlm_ray.data.table import Row
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, parse_boxes
from geovlm_ray.tasks.answers.labels import BIGEARTHNET, split_labels

TASK_ALIASES = {
    "multilabel_classification_sar": "multilabel_classification",
    "change_detection_yes_no": "vqa",
    "change_detection_boxes": "object_detection",
}
REQUIRED_KEYS = ("id", "task", "images", "prompt", "reference")
OPTIONAL_KEYS = ("split", "frame", "dialect", "labels", "sensor", "gsd", "reasoning", "source", "licence")


def settle(source: Source) -> Settled:
    """The unit of boxes in records that do not state it: percent, or fractions if all lie in the first percent."""
    settled = settle_frame(source, json_units(source), raw_rows, possible=("percent", "fraction"))
    return replace(settled, notes=()) if settled.options.get("frame") == "percent" else settled


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The record of a line; none if it has no reference."""
    return framed(unit, raw_rows(unit, source), source)


def raw_rows(unit: Unit, source: Source) -> Iterable[RawRow]:
    """The raw record of a line; none if it has no reference."""
    record = unit.value
    prompt = field_of(record, "prompt")
    check_spelling(record, (*REQUIRED_KEYS, *OPTIONAL_KEYS))
    if record.get("reference") is None:
        return
    name = field_of(record, "task")
    task = name if name in TASKS else TASK_ALIASES.get(name)
    if task is None:
        raise DataError(f"task: {expected_one_of([*TASKS, *TASK_ALIASES], name)}")
    images = field_of(record, "images", list)
    if not images:
        raise DataError(f"images: expected a list of at least one path, found {images!r}")
    labels = _labels(record)
    example = Example(
        id=str(field_of(record, "id", (str, int))),
        task=task,
        images=tuple(map(image_reference, images)),
        question=question_of(prompt),
        target=_target(task, record["reference"], labels),
        dataset=optional_text(record, "source") or "",
        split=split_of(record, unit, source),
        dialect=_dialect(record, source),
        labels=labels,
        reasoning=field_of(record, "reasoning") if record.get("reasoning") is not None else None,
        sensor=optional_text(record, "sensor"),
        gsd=positive_number(record, "gsd"),
    )
    unread = unread_keys(record, (*REQUIRED_KEYS, *OPTIONAL_KEYS))
    yield RawRow(Row(example, licence=optional_text(record, "licence") or "", unread=unread), stated=_frame(record))


def _labels(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The vocabulary of a record, from a list of names."""
    value = record.get("labels")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise DataError(f"labels: expected a list of names, found {short_repr(value)}")
    return tuple(value)


def _frame(record: Mapping[str, Any]) -> str | Frame | None:
    """The unit of boxes that a record states."""
    value = record.get("frame")
    if value is None or (isinstance(value, str) and value in FRAMES[1:]):
        return value
    try:
        return frame_from_json(value)
    except DataError as error:
        known = ", ".join(FRAMES[1:])
        raise DataError(
            f'frame: expected {known} or {{"pixel": [width, height]}}, found {short_repr(value)}'
        ) from error


def _dialect(record: Mapping[str, Any], source: Source) -> str:
    given = source.options.get("dialect", "auto")
    value = optional_text(record, "dialect") or (given if given != "auto" else "brackets")
    if value not in DIALECTS:
        raise DataError(f"dialect: expected one of {', '.join(DIALECTS)}, found {short_repr(value)}")
    return value


def _target(task: str, reference: Any, labels: tuple[str, ...]) -> Target:
    kind = TASKS[task].target_kind
    if kind == "classes" and isinstance(reference, str):
        if task == "multilabel_classification":
            return tuple(split_labels(reference, (*BIGEARTHNET, *labels)))
        return (single_class(task, reference, labels),)
    if kind != "boxes" or not isinstance(reference, str):
        return target_from_json(task, reference)
    parsed = parse_boxes(reference)
    if parsed is None or parsed.malformed:
        raise DataError(f"reference of {task}: expected boxes [[x1, y1, x2, y2]], found {short_repr(reference)}")
    return tuple(Box(coords) for coords in parsed.boxes)


SAMPLES = Format(
    "JSON lines: id, task, images, prompt, reference",
    json_units,
    convert,
    options=FRAME_OPTIONS,
    settle=settle,
)
