"""RSVQA, low and high resolution (Lobry et al., 2020; rsvqa.sylvainlobry.com): questions, answers and images as JSON.

``*questions*.json`` holds ``{"questions": [{"id", "img_id", "type", "question", "answers_ids", "active"}]}``; beside it
lie ``*answers*.json`` with ``{"answers": [{"id", "question_id", "answer", "active"}]}`` and, not always,
``*images*.json`` with sensor and resolution. Each of the splits has its own three files. Entries that are not active
are passed over, as are questions about images that are not. Memory holds the active answers and the images of a split.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, question_words, shown
from geovlm_ray.data.formats.files import first_there, split_called
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.streams import outside, relative
from geovlm_ray.data.table import Row

QUESTIONS, ANSWERS, IMAGES = "questions", "answers", "images"
FOLDERS = ("", "Images_LR/", "Images_HR/", "Data/", "images/")
"""Where the data sets keep ``<img_id>.tif``, the image root being any folder above."""
SENSORS = {"S1": "Sentinel-1", "S2": "Sentinel-2"}
Id = int | str
_SPLIT = re.compile(r"_split_(\w+?)_?$")
_METRES = re.compile(r"(\d*\.?\d+)\s*m?")


@dataclass(frozen=True)
class Image:
    """What a file of images says of one."""

    active: bool = True
    sensor: str | None = None
    gsd: float | None = None


@dataclass(frozen=True)
class Asked:
    """An active question with the answer and the image that it names."""

    question: Mapping[str, Any]
    answer: str
    image: Image


def units(source: Source) -> Iterator[Unit]:
    """Every question of every split, and what is broken among the answers and images.

    Raises:
        DataError: there are no questions, or none of their answers.
    """
    for questions in _question_files(source):
        answers: dict[Id, str] = {}
        images: dict[Id, Image] = {}
        yield from _taken(_beside(questions, ANSWERS), source, ANSWERS, _answer, answers)
        if _beside(questions, IMAGES).exists():
            yield from _taken(_beside(questions, IMAGES), source, IMAGES, _image, images)
        for unit in _entries(questions, source, QUESTIONS):
            yield unit if unit.problem is not None else _asked(unit, answers, images)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a question; none where it or its image is not active."""
    if unit.value is None:
        return
    asked: Asked = unit.value
    stem = unit.file.rpartition(QUESTIONS)[0]
    name, split = Path(stem + QUESTIONS).name, _SPLIT.search(stem)
    image = field_of(asked.question, "img_id", (int, str))
    words = question_words(field_of(asked.question, "question"))
    if not words or not asked.answer.strip():
        raise DataError(f"expected a question and an answer, found {words!r} and {asked.answer!r}")
    example = Example(
        id=f"{stem.rstrip('_')}/{field_of(asked.question, 'id', (int, str))}",
        task="vqa",
        images=(_image_file(source, str(image)),),
        question=words,
        target=asked.answer,
        dataset="RSVQA-HR" if "USGS" in name or "HR" in name else "RSVQA-LR" if "LR" in name else "RSVQA",
        split=split_called(split[1]) if split else "train",
        sensor=asked.image.sensor,
        gsd=asked.image.gsd,
    )
    yield Row(example, extra={"type": asked.question.get("type"), "img_id": image})


def _question_files(source: Source) -> list[Path]:
    """The files of questions; those of a split where there are any, as the rest then repeats them."""
    if source.path.is_file():
        found = [source.path] if QUESTIONS in source.path.name else []
        here = [source.path]
    else:
        here = sorted(source.path.rglob("*.json"))
        found = [p for p in here if QUESTIONS in p.name]
    if not found:
        names = ", ".join(p.name for p in here[:10]) or "no JSON file"
        raise DataError(f"{source.path}: expected a file *questions*.json beside answers and images, found {names}")
    of_splits = [p for p in found if "_split_" in p.name] or found
    for path in of_splits:
        if not _beside(path, ANSWERS).exists():
            raise DataError(f"{path}: expected the file {_beside(path, ANSWERS).name} beside it, found none")
    return of_splits


def _beside(questions: Path, kind: str) -> Path:
    """The file of answers or images that belongs to one of questions."""
    before, _, after = questions.name.rpartition(QUESTIONS)
    return questions.with_name(before + kind + after)


def _entries(path: Path, source: Source, key: str) -> Iterator[Unit]:
    """The entries of a file, those that are not active among them."""
    if (away := outside(path, source)) is not None:
        yield away
        return
    entries = 0
    for found, unit in json_members(path, relative(path, source), (key,)):
        entries += found == key
        if unit.problem is not None:
            yield unit
        elif found == key and unit.number > 0:
            if isinstance(unit.value, Mapping):
                yield unit
            else:
                yield replace(unit, problem=f"{key}: expected an object, found {shown(unit.value)}")
    if not entries:
        yield Unit(relative(path, source), 1, problem=f"expected an object with the list {key!r}, found none")


def _taken(path: Path, source: Source, key: str, take: Callable[[Any], Any], into: dict[Id, Any]) -> Iterator[Unit]:
    """Put what ``take`` makes of the entries of a file, but None, into a dictionary by id; what is broken comes out."""
    for unit in _entries(path, source, key):
        if unit.problem is not None:
            yield unit
            continue
        try:
            taken = take(unit.value)
            if taken is not None:
                into[field_of(unit.value, "id", (int, str))] = taken
        except DataError as error:
            yield replace(unit, problem=f"{key}: {error}")


def _is_active(entry: Mapping[str, Any]) -> bool:
    return entry.get("active", True) is not False


def _answer(entry: Mapping[str, Any]) -> str | None:
    return str(field_of(entry, "answer", (str, int, float))) if _is_active(entry) else None


def _image(entry: Mapping[str, Any]) -> Image:
    """Sensor, and metres per pixel of a resolution such as ``10m``."""
    sensor, metres = entry.get("sensor"), _METRES.fullmatch(str(entry.get("res_x", "")).strip())
    return Image(
        active=_is_active(entry),
        sensor=SENSORS.get(sensor, sensor) if isinstance(sensor, str) else None,
        gsd=float(metres[1]) if metres and float(metres[1]) > 0 else None,
    )


def _asked(unit: Unit, answers: Mapping[Id, str], images: Mapping[Id, Image]) -> Unit:
    """A question joined with its image and the first of its answers that is active.

    There is no value where the question or its image is not active.
    """
    if not _is_active(unit.value):
        return Unit(unit.file, unit.number)
    try:
        image = images.get(field_of(unit.value, "img_id", (int, str)), Image())
        if not image.active:
            return Unit(unit.file, unit.number)
        ids = field_of(unit.value, "answers_ids", list)
        answer = next((answers[i] for i in ids if isinstance(i, int | str) and i in answers), None)
        if answer is None:
            raise DataError(f"answers_ids: expected the id of an active answer, found {shown(ids)}")
    except DataError as error:
        return replace(unit, problem=f"{QUESTIONS}: {error}")
    return Unit(unit.file, unit.number, Asked(unit.value, answer, image))


def _image_file(source: Source, image: str) -> str:
    if not re.fullmatch(r"\w+", image):
        raise DataError(f"img_id: expected a number, found {image!r}")
    return _found(source.images, source.path, image)


@functools.lru_cache(maxsize=100_000)
def _found(root: Path, path: Path, image: str) -> str:
    return first_there(Source(path, root), [f"{folder}{image}.tif" for folder in FOLDERS])


RSVQA = Format("RSVQA LR and HR: files of questions, answers and images", units, convert)
