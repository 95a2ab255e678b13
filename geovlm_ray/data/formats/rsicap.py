"""RSICap and RSIEval (Lavender105/RSGPT): detailed captions, and questions with answers.

RSICap's ``captions.json`` is ``{"annotations": [{"image_id", "filename", "text_input", "text_output"}]}``; RSIEval's
``annotations.json`` is ``{"annotations": [{"filename", "caption", "qa_pairs": [{"question", "answer", "type"}]}]}``.
The images are in ``images`` beside the file. RSIEval is for tests only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, image_reference
from geovlm_ray.data.formats.files import first_existing
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.prompts import question_of, target_of
from geovlm_ray.data.formats.record_fields import optional_text, split_of_file
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.streams import external_link, relative, source_files
from geovlm_ray.data.table import Row

DESCRIBE = "Please provide a detailed description of the picture."
"""Prompt of RSGPT's evaluation script."""
CAPTION_KEYS = ("text_output", "caption")
KNOWN_KEYS = ("image_id", "filename", "text_input", "qa_pairs", *CAPTION_KEYS)


def units(source: Source) -> Iterator[Unit]:
    """The annotations of each file."""
    for path in source_files(source, (".json",)):
        if (link := external_link(path, source)) is not None:
            yield link
            continue
        for key, unit in json_members(path, relative(path, source), ("annotations",)):
            if unit.problem is not None or (key == "annotations" and unit.number > 0):
                yield unit


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The caption of an image and its questions, and a problem for each invalid question."""
    record = unit.value
    name = image_reference(field_of(record, "filename"))
    folder = PurePosixPath(unit.file).parent
    candidates = [image_reference((folder / "images" / name).as_posix()), f"images/{name}", name]
    is_test = "qa_pairs" in record
    common = Example(
        id=f"{unit.file}:{unit.number}",
        task="image_captioning",
        images=(first_existing(source, candidates),),
        question=DESCRIBE,
        target=(),
        dataset="RSIEval" if is_test else "RSICap",
        split="test" if is_test else split_of_file(unit.file, source),
    )
    caption = next((text for key in CAPTION_KEYS if (text := optional_text(record, key))), None)
    pairs = field_of(record, "qa_pairs", list) if record.get("qa_pairs") is not None else []
    if caption is None and not pairs:
        raise DataError(
            f"expected {', '.join(CAPTION_KEYS)} or qa_pairs, found only {', '.join(map(repr, record))}"[:500]
        )
    unread = unread_keys(record, KNOWN_KEYS)
    if caption is not None:
        question = optional_text(record, "text_input") or DESCRIBE
        yield Row(replace(common, question=question_of(question), target=(caption,)), unread=unread)
    for number, pair in enumerate(pairs, 1):
        try:
            yield _question(common, number, pair)
        except DataError as error:
            yield replace(unit, value=pair, problem=f"qa_pairs, number {number}: {error}")


def _question(common: Example, number: int, pair: Any) -> Row:
    question = question_of(field_of(pair, "question"))
    target = target_of("vqa", (field_of(pair, "answer"),))
    example = replace(common, id=f"{common.id}-{number}", task="vqa", question=question, target=target)
    kind = pair.get("type") if isinstance(pair, Mapping) else None
    return Row(example, extra={"type": kind} if isinstance(kind, str) else {}, unread=())


RSICAP = Format("RSICap captions and RSIEval captions and questions (RSGPT): JSON", units, convert)
