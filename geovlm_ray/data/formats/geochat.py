"""GeoChat-Instruct and GeoChat-Bench (mbzuai-oryx/GeoChat; MBZUAI/GeoChat_Instruct and GeoChat-Bench on Hugging Face).

Instruct is a JSON array (or JSON lines) of ``{"id", "image", "conversations"}``. Bench is JSON lines: referred objects
and regions ``{"question_id", "image_id", "question", "ground_truth", "type", "dataset", "obj_ids", "size_group"}``, VQA
and scenes ``{"question_id", "image", "text"[, "ground_truth"]}``. Boxes are ``{<x1><y1><x2><y2>|<angle>}`` in percent;
in Bench, four corners in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.conversations import conversation_rows, images_of, record_id, without
from geovlm_ray.data.formats.prompts import check_percent, example_of, listed_classes
from geovlm_ray.data.formats.quads import smallest_rotated_box
from geovlm_ray.data.formats.record_fields import split_of
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.streams import json_units
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.labels import label_key

KNOWN_KEYS = ("split", "type", "dataset", "obj_ids", "size_group")
"""Keys besides those of a record's image, question and answer, which are kept as they are."""


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The records of a conversation, or the record of a benchmark question; none if it has no reference."""
    record = unit.value
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {short_repr(record)}")
    if "conversations" in record:
        return _instruct(unit, record, source)
    return _region(unit, record) if "image_id" in record else _question(unit, record)


def _instruct(unit: Unit, record: Mapping[str, Any], source: Source) -> Iterable[Row | Unit]:
    split = split_of(record, unit, source)

    def example(id: str, question: str, answers: tuple[str]) -> Example:
        images = images_of(record)
        return check_percent(example_of(id, question, answers, images, dataset="GeoChat-Instruct", split=split))

    extra = without(record, "id", "image", "conversations") if len(record) > 3 else {}
    rows, bad = conversation_rows(unit, record["conversations"], record_id(record, unit, "id"), example, extra)
    return (*(replace(row, unread=unread_keys(row.extra, KNOWN_KEYS)) for row in rows), *bad)


def _region(unit: Unit, record: Mapping[str, Any]) -> Iterable[Row]:
    """Referred objects or a region, with the prompts of batch_geochat_grounding.py and batch_geochat_referring.py."""
    truth = record.get("ground_truth")
    if truth is None:
        return
    question, image = field_of(record, "question"), field_of(record, "image_id")
    if "{" in question:
        prompt = f"[identify] What is the object present at {question}"
    elif record.get("type") == "ref" or isinstance(truth, list):
        prompt = f"[refer] Give me the location of <p> {question} </p>"
    else:
        prompt = f"[grounding]{question}"
    image = image if "." in image else f"{image}.png"
    if not isinstance(truth, list):
        yield _benchmark(unit, record, prompt, truth, image)
        return
    row = _benchmark(unit, record, prompt, "[]", image)
    side = _side(image)
    boxes = tuple(Box(smallest_rotated_box(corners)) for corners in _corners(truth))
    yield replace(row, example=replace(row.example, target=boxes, frame=Frame("pixel", side, side)))


def _question(unit: Unit, record: Mapping[str, Any]) -> Iterable[Row]:
    """VQA or a scene; without a reference, the class is the part of the id before ``/``, as in GeoChat's metric."""
    prompt, answer = field_of(record, "text"), record.get("ground_truth")
    class_name, slash, _ = str(record.get("question_id", "")).partition("/")
    if answer is None and not slash:
        return
    if answer is None:
        listed = {label_key(name): name for name in listed_classes(prompt)}
        answer = listed.get(label_key(class_name), class_name)
    yield _benchmark(unit, record, prompt, answer, field_of(record, "image"))


def _benchmark(unit: Unit, record: Mapping[str, Any], prompt: str, answer: Any, image: str) -> Row:
    if not isinstance(answer, str):
        raise DataError(f"ground_truth: expected text, found {short_repr(answer)}")
    id, images = record_id(record, unit, "question_id"), (image_reference(image),)
    example = example_of(id, prompt, (answer,), images, dataset="GeoChat-Bench", split="test")
    extra = without(record, "question_id", "image", "image_id", "question", "text", "ground_truth")
    return Row(example, extra=extra, unread=unread_keys(extra, KNOWN_KEYS))


def _corners(truth: list[Any]) -> list[list[float]]:
    """The corners of each object as eight numbers, from the four pairs that are stored."""
    rows = []
    for shape in truth:
        pairs = shape if isinstance(shape, list) else []
        numbers = [n for pair in pairs if isinstance(pair, list) and len(pair) == 2 for n in pair]
        if len(pairs) != 4 or len(numbers) != 8 or not all(isinstance(n, int | float) for n in numbers):
            raise DataError(f"ground_truth: expected four corners [x, y] for each object, found {short_repr(shape)}")
        rows.append(numbers)
    return rows


def _side(image: str) -> float:
    """Side of an image in pixels, to which the benchmark's corners refer; its dataset is recognized by the file name.

    Source: ermongroup/TEOChat, videollava/eval/eval_geochat_referring.py.
    """
    name = image.rsplit("/", 1)[-1]
    return 1024.0 if name.startswith("P") else 600.0 if name.startswith("train") else 800.0


GEOCHAT = Format("GeoChat-Instruct conversations and GeoChat-Bench questions: JSON or JSON lines", json_units, convert)
