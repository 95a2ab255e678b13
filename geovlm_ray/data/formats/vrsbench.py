"""VRSBench (lx709/VRSBench; xiang709/VRSBench on Hugging Face).

Annotations are a JSON file an image, ``{"image", "caption", "objects", "qa_pairs"}``; an object's ``obj_corner`` are
four corners as fractions of the image. Evaluation files (prepare_eval_all.ipynb) are arrays of ``{"image_id",
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
from geovlm_ray.data.formats.base import Converted, Format, Source, Unit, field_of, image_reference, shown
from geovlm_ray.data.formats.conversations import record_id
from geovlm_ray.data.formats.files import chosen
from geovlm_ray.data.formats.prompts import question_of, target_of
from geovlm_ray.data.formats.quads import horizontal_box, rotated_box
from geovlm_ray.data.formats.streams import LONGEST_RECORD, json_records, outside, read_object, relative, source_files
from geovlm_ray.data.table import Row

DATASET = "VRSBench"
DESCRIBE = "Describe the image in detail"
"""The question of the benchmark's captions."""
EVALUATED = {"ref": "visual_grounding", "caption": "image_captioning"}
"""Task of an evaluation file's records by their type; all others are questions."""

_Reader = Callable[[Any], tuple[str, str, Target]]
_ASKED = ("referring_sentence", "obj_corner", "question", "answer", "ground_truth")


def units(source: Source) -> Iterator[Unit]:
    """Each annotation file, and each record of the others.

    Raises:
        DataError: the option is neither ``horizontal`` nor ``rotated``.
    """
    _rotated(source)
    for path in source_files(source, (".json", ".jsonl")):
        if outside(path, source) or not _is_one_object(path):
            yield from json_records(path, source)
        else:
            yield Unit(relative(path, source), 1, path)


def convert(unit: Unit, source: Source) -> Iterable[Row | Converted | Unit]:
    """The records of an image's annotations or of a conversation, or the one of an evaluation file."""
    # Only our own paths are read: the text in a line of JSON is none.
    record = read_object(unit.value) if isinstance(unit.value, Path) else unit.value
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {shown(record)}")
    if "conversations" in record:
        return map(_ours, geochat.convert(replace(unit, value=record), source))
    if "image_id" in record:
        return [_evaluated(unit, record)]
    return _annotated(replace(unit, value=record), record, _rotated(source))


def _ours(item: Row | Unit) -> Row | Unit:
    """A record of VRSBench's training file, which has GeoChat's form."""
    return replace(item, example=replace(item.example, dataset=DATASET)) if isinstance(item, Row) else item


def _rotated(source: Source) -> bool:
    return chosen(source, "boxes", ("horizontal", "rotated")) == "rotated"


def _is_one_object(path: Path) -> bool:
    """Whether a file is an object over several lines; those of one line are read as JSON lines."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_RECORD)
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _evaluated(unit: Unit, record: Mapping[str, Any]) -> Row:
    example = Example(
        id=record_id(record, unit, "question_id"),
        task=EVALUATED.get(str(record.get("type")), "vqa"),
        images=(image_reference(record["image_id"]),),
        question=question_of(field_of(record, "question")),
        target=(),
        dataset=DATASET,
        split="test",
    )
    target = target_of(example.task, (field_of(record, "ground_truth"),))
    return Row(replace(example, target=target), extra=_others(record, "question_id", "image_id", *_ASKED))


def _annotated(unit: Unit, record: Mapping[str, Any], rotated: bool) -> Iterator[Row | Unit]:
    """An image's caption, objects and questions; a bad one is set aside alone."""
    image = image_reference(field_of(record, "image"))
    parts: list[tuple[str, Any, _Reader]] = []
    if record.get("caption") is not None:
        parts.append(("caption", record["caption"], _caption))
    readers: dict[str, _Reader] = {"objects": partial(_object, rotated=rotated), "qa_pairs": _question}
    for key, read in readers.items():
        found = field_of(record, key, list) if key in record else []
        parts += [(f"{key}-{i}", item, read) for i, item in enumerate(found, 1)]
    if not parts:
        raise DataError(f"expected a caption, objects or qa_pairs, found only {', '.join(map(repr, record))}")
    for name, item, read in parts:
        try:
            task, question, target = read(item)
        except DataError as error:
            yield replace(unit, value=item, problem=f"{name}: {error}")
            continue
        example = Example(f"{image}-{name}", task, (image,), question, target, DATASET)
        yield Row(example, extra=_others(item, *_ASKED) if isinstance(item, Mapping) else {})


def _caption(caption: Any) -> tuple[str, str, Target]:
    if not isinstance(caption, str):
        raise DataError(f"expected str, found {shown(caption)}")
    return "image_captioning", DESCRIBE, target_of("image_captioning", (caption,))


def _object(item: Any, rotated: bool) -> tuple[str, str, Target]:
    corners = field_of(item, "obj_corner", list)
    if len(corners) != 8 or not all(map(_is_fraction, corners)):
        raise DataError(f"obj_corner: expected 8 numbers, fractions of the image, found {shown(corners)}")
    percent = [100 * float(v) for v in corners]
    # The benchmark's own boxes end at the image's edges, too.
    box = rotated_box(percent) if rotated else tuple(min(max(v, 0.0), 100.0) for v in horizontal_box(percent))
    return "visual_grounding", question_of(field_of(item, "referring_sentence")), (Box(box),)


def _question(item: Any) -> tuple[str, str, Target]:
    return "vqa", question_of(field_of(item, "question")), target_of("vqa", (field_of(item, "answer"),))


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 2


def _others(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


VRSBENCH = Format(
    "VRSBench: a folder of JSON files, one an image, or its evaluation files; boxes=horizontal or rotated",
    units,
    convert,
    options={"boxes": "horizontal"},
)
