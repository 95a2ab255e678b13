"""VRSBench (lx709/VRSBench; xiang709/VRSBench on Hugging Face).

Annotations are one JSON file per image, ``{"image", "caption", "objects", "qa_pairs"}``; an object's ``obj_corner``
holds four corners as fractions of the image. Evaluation files (prepare_eval_all.ipynb) are arrays of ``{"image_id",
"question", "ground_truth", "type"}``, boxes as ``{<x1><y1><x2><y2>}`` in percent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.formats import geochat
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.conversations import record_id, without
from geovlm_ray.data.formats.files import choice_option
from geovlm_ray.data.formats.json_members import MAX_RECORD_BYTES
from geovlm_ray.data.formats.prompts import question_of, target_of
from geovlm_ray.data.formats.quads import horizontal_box, smallest_rotated_box
from geovlm_ray.data.formats.streams import external_link, json_records, read_single_object, relative, source_files
from geovlm_ray.data.table import Row

DATASET = "VRSBench"
DESCRIBE = "Describe the image in detail"
"""The benchmark's prompt for captions."""
EVALUATION_TASKS = {"ref": "visual_grounding", "caption": "image_captioning"}
"""Task of an evaluation record by its type; all other types are VQA."""

_Reader = Callable[[Any], tuple[str, str, Target]]
_CONSUMED_KEYS = ("referring_sentence", "obj_corner", "question", "answer", "ground_truth")


def units(source: Source) -> Iterator[Unit]:
    """Each annotation file, and each record of other files."""
    _is_rotated(source)
    for path in source_files(source, (".json", ".jsonl")):
        if external_link(path, source) or not _spans_several_lines(path):
            yield from json_records(path, source)
        else:
            yield Unit(relative(path, source), 1, path)


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of an annotation file or a conversation, or the record of an evaluation entry."""
    # Only a Path made by `units` is opened, never a string from a JSON line.
    record = read_single_object(unit.value) if isinstance(unit.value, Path) else unit.value
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {short_repr(record)}")
    if "conversations" in record:
        # VRSBench's training file has GeoChat's format.
        items = geochat.convert(replace(unit, value=record), source)
        return [i if isinstance(i, Unit) else replace(i, example=replace(i.example, dataset=DATASET)) for i in items]
    if "image_id" in record:
        return [_evaluation_record(unit, record)]
    return _annotation_records(replace(unit, value=record), record, _is_rotated(source))


def _is_rotated(source: Source) -> bool:
    return choice_option(source, "boxes", ("horizontal", "rotated")) == "rotated"


def _spans_several_lines(path: Path) -> bool:
    """Whether a file is one object over several lines; an object on one line is read as JSON lines."""
    with path.open("rb") as file:
        line = file.readline(MAX_RECORD_BYTES)
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _evaluation_record(unit: Unit, record: Mapping[str, Any]) -> Row:
    example = Example(
        id=record_id(record, unit, "question_id"),
        task=EVALUATION_TASKS.get(str(record.get("type")), "vqa"),
        images=(image_reference(record["image_id"]),),
        question=question_of(field_of(record, "question")),
        target=(),
        dataset=DATASET,
        split="test",
    )
    target = target_of(example.task, (field_of(record, "ground_truth"),))
    return Row(replace(example, target=target), extra=without(record, "question_id", "image_id", *_CONSUMED_KEYS))


def _annotation_records(unit: Unit, record: Mapping[str, Any], rotated: bool) -> Iterator[Row | Unit]:
    """The records of an image's caption, objects and questions, and a problem for each invalid one."""
    image = image_reference(field_of(record, "image"))
    parts: list[tuple[str, Any, _Reader]] = []
    if record.get("caption") is not None:
        parts.append(("caption", record["caption"], _caption))
    readers: dict[str, _Reader] = {"objects": partial(_object, rotated=rotated), "qa_pairs": _question}
    for key, read in readers.items():
        items = field_of(record, key, list) if key in record else []
        parts += [(f"{key}-{i}", item, read) for i, item in enumerate(items, 1)]
    if not parts:
        raise DataError(f"expected a caption, objects or qa_pairs, found only {', '.join(map(repr, record))}")
    for name, item, read in parts:
        try:
            task, question, target = read(item)
        except DataError as error:
            yield replace(unit, value=item, problem=f"{name}: {error}")
            continue
        example = Example(f"{image}-{name}", task, (image,), question, target, DATASET)
        yield Row(example, extra=without(item, *_CONSUMED_KEYS) if isinstance(item, Mapping) else {})


def _caption(caption: Any) -> tuple[str, str, Target]:
    if not isinstance(caption, str):
        raise DataError(f"expected str, found {short_repr(caption)}")
    return "image_captioning", DESCRIBE, target_of("image_captioning", (caption,))


def _object(item: Any, rotated: bool) -> tuple[str, str, Target]:
    corners = field_of(item, "obj_corner", list)
    if len(corners) != 8 or not all(map(_is_fraction, corners)):
        raise DataError(f"obj_corner: expected 8 fractions of the image size, found {short_repr(corners)}")
    percent = [100 * float(v) for v in corners]
    # The benchmark clips its boxes to the image as well.
    box = smallest_rotated_box(percent) if rotated else tuple(min(max(v, 0.0), 100.0) for v in horizontal_box(percent))
    return "visual_grounding", question_of(field_of(item, "referring_sentence")), (Box(box),)


def _question(item: Any) -> tuple[str, str, Target]:
    return "vqa", question_of(field_of(item, "question")), target_of("vqa", (field_of(item, "answer"),))


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 2


VRSBENCH = Format(
    "VRSBench: a folder of JSON files, one per image, or its evaluation files; boxes=horizontal or rotated",
    units,
    convert,
    options={"boxes": "horizontal"},
)
