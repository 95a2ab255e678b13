"""VRSBench (lx709/VRSBench; xiang709/VRSBench on Hugging Face).

Annotations are one JSON file per image, ``{"image", "caption", "objects", "qa_pairs"}``, in ``Annotations_train`` and
``Annotations_val``, also zipped; an object's ``obj_corner`` holds four corners as fractions of the image. Question
files have the same content: ``VRSBench_train.json`` as GeoChat's conversations, and ``VRSBench_EVAL_*.json``
(prepare_eval_all.ipynb) as arrays of ``{"image_id", "question", "ground_truth", "type"}``, boxes as
``{<x1><y1><x2><y2>}`` in percent. Of a folder with both, the question files are read, or with ``boxes=rotated`` the
annotations, which have the corners. Images are in ``Images_train`` and ``Images_val``.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.formats import geochat
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.conversations import record_id, without
from geovlm_ray.data.formats.files import choice_option, first_existing
from geovlm_ray.data.formats.json_members import MAX_RECORD_BYTES
from geovlm_ray.data.formats.prompts import question_of, target_of
from geovlm_ray.data.formats.quads import horizontal_box, smallest_rotated_box
from geovlm_ray.data.formats.record_fields import split_of_file
from geovlm_ray.data.formats.record_files import unread_keys
from geovlm_ray.data.formats.streams import external_link, json_records, read_single_object, relative, source_files
from geovlm_ray.data.table import Row

DATASET = "VRSBench"
DESCRIBE = "Describe the image in detail"
"""The benchmark's prompt for captions."""
EVALUATION_TASKS = {"ref": "visual_grounding", "caption": "image_captioning"}
"""Task of an evaluation record by its type; all other types are VQA."""

_Reader = Callable[[Any], tuple[str, str, Target]]
_RECORD_KEYS = ("image", "caption", "objects", "qa_pairs")
_CONSUMED_KEYS = ("referring_sentence", "obj_corner", "question", "answer", "ground_truth")


@dataclass(frozen=True)
class ZipMember:
    """An annotation file in a zip archive."""

    archive: Path
    name: str


def units(source: Source) -> Iterator[Unit]:
    """Each annotation file, and each record of other files."""
    for path in _files(source)[0]:
        if (link := external_link(path, source)) is not None:
            yield link
        elif path.suffix.lower() == ".zip":
            yield from _zip_units(path, source)
        elif not _spans_several_lines(path):
            yield from json_records(path, source)
        else:
            yield Unit(relative(path, source), 1, path)


def settle(source: Source) -> Settled:
    """Which of the files with the same content are read."""
    skipped = _files(source)[1]
    if not skipped:
        return Settled()
    names = ", ".join(sorted({relative(path, source).split("/")[0] for path in skipped}))
    return Settled(notes=(f"passed over, because other files of the source have the same content: {names}",))


def convert(unit: Unit, source: Source) -> Iterator[Row | Unit]:
    """The records of an annotation file or a conversation, or the record of an evaluation entry."""
    record = _record(unit.value)
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {short_repr(record)}")
    if "conversations" in record:
        # VRSBench's training file has GeoChat's format.
        items: Iterable[Row | Unit] = geochat.convert(replace(unit, value=record), source)
    elif "image_id" in record:
        items = [_evaluation_record(unit, record)]
    else:
        items = _annotation_records(
            replace(unit, value=record), record, _is_rotated(source), _split_of_annotations(unit, source)
        )
    for item in items:
        if isinstance(item, Unit):
            yield item
        else:
            images = tuple(_image(name, item.example.split, source) for name in item.example.images)
            yield replace(item, example=replace(item.example, dataset=DATASET, images=images))


def _split_of_annotations(unit: Unit, source: Source) -> str:
    """The split of an annotation file, from the name of its folder or archive."""
    return split_of_file(f"{source.folder.resolve().name}/{unit.file}", source)


def _files(source: Source) -> tuple[list[Path], list[Path]]:
    """The files to read, and those that are passed over because others have the same content."""
    rotated = _is_rotated(source)
    files = source_files(source, (".json", ".jsonl", ".zip"))
    by_kind: dict[tuple[bool, bool], list[Path]] = {}
    for path in files:
        name = path.stem.lower() if path == source.path else relative(path, source).lower()
        is_question_file = path.suffix.lower() != ".zip" and path.stem.lower().startswith("vrsbench_")
        is_annotation = "annotations_" in name
        if is_question_file or is_annotation:
            by_kind.setdefault((is_question_file, "train" in name), []).append(path)
    skipped: list[Path] = []
    for is_train in (True, False):
        questions, annotations = by_kind.get((True, is_train), []), by_kind.get((False, is_train), [])
        if questions and annotations:
            skipped += questions if rotated else annotations
    left_out = set(skipped)
    return [path for path in files if path not in left_out], skipped


def _zip_units(path: Path, source: Source) -> Iterator[Unit]:
    """The JSON files of an archive."""
    name = relative(path, source)
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(m for m in archive.namelist() if m.lower().endswith(".json") and "__MACOSX" not in m)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        yield Unit(name, 1, problem=f"expected a zip archive, found: {error}")
        return
    for number, member in enumerate(members, 1):
        yield Unit(name, number, ZipMember(path, member))


def _record(value: Any) -> Any:
    """The record of a unit; only a file found by `units` is opened, never a string from a JSON line."""
    if isinstance(value, Path):
        return read_single_object(value)
    if not isinstance(value, ZipMember):
        return value
    try:
        with zipfile.ZipFile(value.archive) as archive, archive.open(value.name) as file:
            content = file.read(MAX_RECORD_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{value.name}: expected a readable file in the archive, found: {error}") from error
    if len(content) > MAX_RECORD_BYTES:
        raise DataError(f"{value.name}: expected at most {MAX_RECORD_BYTES} bytes, found more")
    return json.loads(content)


def _image(name: str, split: str, source: Source) -> str:
    """The image of a record, in the folder of its split if the images are where the archives unpack them."""
    folders = ("Images_train", "Images_val") if split == "train" else ("Images_val", "Images_train")
    return first_existing(source, [name, *(f"{folder}/{name}" for folder in folders), f"images/{name}"])


def _is_rotated(source: Source) -> bool:
    return choice_option(source, "boxes", ("horizontal", "rotated")) == "rotated"


def _spans_several_lines(path: Path) -> bool:
    """Whether a file is one object over several lines; an object on one line is read as JSON lines."""
    with path.open("rb") as file:
        line = file.readline(MAX_RECORD_BYTES).removeprefix(b"\xef\xbb\xbf")
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


def _annotation_records(unit: Unit, record: Mapping[str, Any], rotated: bool, split: str) -> Iterator[Row | Unit]:
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
        example = Example(f"{image}-{name}", task, (image,), question, target, DATASET, split)
        extra = without(item, *_CONSUMED_KEYS) if isinstance(item, Mapping) else {}
        yield Row(example, extra=extra, unread=unread_keys(record, _RECORD_KEYS) if name == parts[0][0] else ())


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
    "VRSBench: annotations (folders or zips), VRSBench_train.json, VRSBench_EVAL_*.json; boxes=horizontal or rotated",
    units,
    convert,
    options={"boxes": "horizontal"},
    settle=settle,
)
