"""RSVQA, low and high resolution (Lobry et al., 2020; rsvqa.sylvainlobry.com): questions, answers and images as JSON.

``*questions*.json`` holds ``{"questions": [{"id", "img_id", "type", "question", "answers_ids", "active"}]}``; next to
it are ``*answers*.json`` with ``{"answers": [{"id", "question_id", "answer", "active"}]}`` and optionally
``*images*.json`` with sensor and resolution. Each split has its own three files. Inactive entries and questions about
inactive images are skipped. The active answers and the images of one split are held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, question_words, short_repr
from geovlm_ray.data.formats.files import first_existing, normalize_split
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.data.table import Row

QUESTIONS, ANSWERS, IMAGES = "questions", "answers", "images"
FOLDERS = ("", "Images_LR/", "Images_HR/", "Data/", "images/")
"""Folders of ``<img_id>.tif`` in the datasets, relative to an image root at or above them."""
SENSORS = {"S1": "Sentinel-1", "S2": "Sentinel-2"}
Id = int | str
_SPLIT = re.compile(r"_split_(\w+?)_?$")
_METRES = re.compile(r"(\d*\.?\d+)\s*m?")


@dataclass(frozen=True)
class ImageInfo:
    """An entry of an images file."""

    active: bool = True
    sensor: str | None = None
    gsd: float | None = None


@dataclass(frozen=True)
class JoinedQuestion:
    """An active question with its answer and image."""

    question: Mapping[str, Any]
    answer: str
    image: ImageInfo


def units(source: Source) -> Iterator[Unit]:
    """Each question of each split, and a problem for each invalid answer or image."""
    for questions in _question_files(source):
        answers: dict[Id, str] = {}
        images: dict[Id, ImageInfo] = {}
        yield from _problems(_entries(_sibling(questions, ANSWERS), source, ANSWERS, partial(_add_answer, answers)))
        if _sibling(questions, IMAGES).exists():
            yield from _problems(_entries(_sibling(questions, IMAGES), source, IMAGES, partial(_add_image, images)))
        yield from _entries(questions, source, QUESTIONS, partial(_join, answers, images))


def _problems(units: Iterable[Unit]) -> Iterator[Unit]:
    return (unit for unit in units if unit.problem is not None)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a question; none if it or its image is inactive."""
    if unit.value is None:
        return
    joined: JoinedQuestion = unit.value
    stem = unit.file.rpartition(QUESTIONS)[0]
    name, split = Path(stem + QUESTIONS).name, _SPLIT.search(stem)
    image = field_of(joined.question, "img_id", (int, str))
    words = question_words(field_of(joined.question, "question"))
    if not words or not joined.answer.strip():
        raise DataError(f"expected a question and an answer, found {words!r} and {joined.answer!r}")
    example = Example(
        id=f"{stem.rstrip('_')}/{field_of(joined.question, 'id', (int, str))}",
        task="vqa",
        images=(_image_file(source.images, str(image)),),
        question=words,
        target=joined.answer,
        dataset="RSVQA-HR" if "USGS" in name or "HR" in name else "RSVQA-LR" if "LR" in name else "RSVQA",
        split=normalize_split(split[1]) if split else "train",
        sensor=joined.image.sensor,
        gsd=joined.image.gsd,
    )
    yield Row(example, extra={"type": joined.question.get("type"), "img_id": image})


def _question_files(source: Source) -> list[Path]:
    """The questions files; only those of splits if there are any, because the others repeat their questions."""
    files = [source.path] if source.path.is_file() else sorted(source.path.rglob("*.json"))
    question_files = [p for p in files if QUESTIONS in p.name]
    if not question_files:
        names = ", ".join(p.name for p in files[:10]) or "no JSON file"
        raise DataError(f"{source.path}: expected a file *questions*.json next to answers and images, found {names}")
    split_files = [p for p in question_files if "_split_" in p.name] or question_files
    for path in split_files:
        if not _sibling(path, ANSWERS).exists():
            raise DataError(f"{path}: expected the file {_sibling(path, ANSWERS).name} next to it, found none")
    return split_files


def _sibling(questions: Path, kind: str) -> Path:
    """The answers or images file that belongs to a questions file."""
    prefix, _, suffix = questions.name.rpartition(QUESTIONS)
    return questions.with_name(prefix + kind + suffix)


def _entries(path: Path, source: Source, key: str, parse: Callable[[Any], Any]) -> Iterator[Unit]:
    """The entries of a file as ``parse`` returns them; a DataError gives a unit with a problem."""
    if (link := external_link(path, source)) is not None:
        yield link
        return
    entries = 0
    for entry_key, unit in json_members(path, relative(path, source), (key,)):
        entries += entry_key == key
        if unit.problem is not None:
            yield unit
        elif entry_key == key and unit.number > 0:
            try:
                if not isinstance(unit.value, Mapping):
                    raise DataError(f"expected an object, found {short_repr(unit.value)}")
                yield replace(unit, value=parse(unit.value))
            except DataError as error:
                yield replace(unit, problem=f"{key}: {error}")
    if not entries:
        yield Unit(relative(path, source), 1, problem=f"expected an object with the list {key!r}, found none")


def _is_active(entry: Mapping[str, Any]) -> bool:
    return entry.get("active", True) is not False


def _add_answer(answers: dict[Id, str], entry: Mapping[str, Any]) -> None:
    if _is_active(entry):
        text = str(field_of(entry, "answer", (str, int, float)))
        answers[field_of(entry, "id", (int, str))] = text


def _add_image(images: dict[Id, ImageInfo], entry: Mapping[str, Any]) -> None:
    """Add sensor and metres per pixel of an entry; ``res_x`` is a resolution such as ``10m``."""
    sensor, metres = entry.get("sensor"), _METRES.fullmatch(str(entry.get("res_x", "")).strip())
    images[field_of(entry, "id", (int, str))] = ImageInfo(
        active=_is_active(entry),
        sensor=SENSORS.get(sensor, sensor) if isinstance(sensor, str) else None,
        gsd=float(metres[1]) if metres and float(metres[1]) > 0 else None,
    )


def _join(
    answers: Mapping[Id, str], images: Mapping[Id, ImageInfo], question: Mapping[str, Any]
) -> JoinedQuestion | None:
    """Join a question with its image and its first active answer; None if the question or its image is inactive."""
    if not _is_active(question):
        return None
    image = images.get(field_of(question, "img_id", (int, str)), ImageInfo())
    if not image.active:
        return None
    ids = field_of(question, "answers_ids", list)
    answer = next((answers[i] for i in ids if isinstance(i, int | str) and i in answers), None)
    if answer is None:
        raise DataError(f"answers_ids: expected the id of an active answer, found {short_repr(ids)}")
    return JoinedQuestion(question, answer, image)


@lru_cache(maxsize=100_000)
def _image_file(root: Path, image: str) -> str:
    if not re.fullmatch(r"\w+", image):
        raise DataError(f"img_id: expected a number, found {image!r}")
    return first_existing(Source(root, root), [f"{folder}{image}.tif" for folder in FOLDERS])


RSVQA = Format("RSVQA LR and HR: JSON files of questions, answers and images", units, convert)
