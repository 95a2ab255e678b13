"""COCO detection files (Lin et al., 2014; cocodataset.org, "Data format").

Each image and category gives one referred detection. A file lists images, annotations and categories in any order, so
it is joined as a whole in a temporary file, about as large as the source. Data outside the records, mostly images
without objects, goes into the dataset card, so that the file can be restored. Crowd annotations are kept for restoring
only; they are not detection targets.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, target_boxes
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.coco_join import Group, Join, is_crowd
from geovlm_ray.data.formats.files import image_exists, image_in_split, question_for, split_from_name
from geovlm_ray.data.formats.objects import check_inside, pixel_frame
from geovlm_ray.data.formats.streams import external_link, relative, source_files
from geovlm_ray.data.table import UNCLEAR, Row

QUESTION = "Give me the location of every {label} in the image."
ITEM_KEYS = ("images", "annotations")


def units(source: Source) -> Iterator[Unit]:
    """The groups of each file, and a problem for each item that is invalid or cannot be joined."""
    question_for(source, QUESTION, "")
    for path in source_files(source, (".json",)):
        join = Join()
        yield from join.read(path, source)
        yield from join.groups(relative(path, source))
        if source.with_empty:
            yield from join.without_annotations(relative(path, source))


def convert(unit: Unit, source: Source) -> Iterable[Row | Unit]:
    """The record of a group, none if it holds only crowds, and a problem for each box beyond the image."""
    group: Group = unit.value
    image = pickle.loads(group.image)
    annotations = [pickle.loads(a) for a in group.annotations]
    frame = Frame("pixel", float(image["width"]), float(image["height"]))
    kept: list[tuple[int, dict[str, Any], Box | None]] = []
    unclear = set(group.unclear)
    for place, annotation in zip(group.positions, annotations, strict=True):
        try:
            box = None if is_crowd(annotation) else check_inside(_box(annotation["bbox"], group.category), frame)
        except DataError as error:
            unclear.add(group.category)
            yield replace(unit, value=annotation, number=place + 1, problem=f"annotations, number {place + 1}: {error}")
        else:
            kept.append((place, annotation, box))
    if annotations and not any(box for _, _, box in kept):
        return
    file = PurePosixPath(unit.file)
    name = image_in_split(source, unit.file, image_reference(image["file_name"]))
    if image_exists(source, name):
        pixel_frame(name, source, frame.scale)
    licence = group.licences.get(repr(image.get("license")), "")
    common = Example(
        id=f"{file.with_suffix('')}/{image['id']}",
        task="referred_object_detection",
        images=(name,),
        question="",
        target=(),
        dataset=file.stem,
        split=split_from_name(file.stem),
        frame=frame,
    )
    if not annotations:
        yield Row(common, licence=licence, is_empty=True)
        return
    example = replace(
        common,
        id=f"{common.id}/{annotations[0]['category_id']}",
        question=question_for(source, QUESTION, group.category),
        target=tuple(box for _, _, box in kept if box),
    )
    extra = {
        "image": image,
        "image_place": group.image_position,
        "annotations": [_without_bbox(annotation, box) for _, annotation, box in kept],
        "places": [place for place, _, _ in kept],
    } | ({UNCLEAR: sorted(unclear)} if unclear else {})
    yield Row(example, licence=licence, extra=extra, parts=len(target_boxes(example.target)))


def header(source: Source) -> dict[str, Any]:
    """Data outside the records, by file: top-level values, and unused images and annotations with their positions."""
    files = {}
    for path in source_files(source, (".json",)):
        if external_link(path, source) is None:
            join = Join()
            for _ in join.read(path, source):
                pass
            files[relative(path, source)] = join.unconverted()
    return {"files": files}


def restore(rows: Iterator[Row], header: Mapping[str, Any], path: Path) -> None:
    """Write the COCO file to ``path``, or, if the source had several, each of them below the folder ``path``.

    Raises:
        DataError: a record comes from an unknown file, or a file name leaves the folder.
    """
    files: Mapping[str, Any] = header.get("files", {})
    restored = {name: _RestoredFile(contents) for name, contents in files.items()}
    for row in rows:
        if row.source_file not in restored:
            raise DataError(
                f"record {row.example.id!r}: expected a file of {', '.join(files)}, found {row.source_file!r}"
            )
        restored[row.source_file].add(row)
    for name, file in restored.items():
        out = path if len(restored) == 1 else path / name
        if not out.resolve().is_relative_to(path.resolve()):
            raise DataError(f"expected a file name below the source, found {name!r}")
        file.write(out)


class _RestoredFile:
    """A COCO file that is being restored."""

    def __init__(self, contents: Mapping[str, Any]) -> None:
        self.keys: Mapping[str, Any] = contents["keys"]
        self.database = sqlite3.connect("")  # an unnamed temporary file
        self.database.execute("CREATE TABLE items (key TEXT, position INTEGER, json TEXT, UNIQUE (key, position))")
        for key in ITEM_KEYS:
            for position, value in contents[key]:
                self._put(key, position, value)

    def add(self, row: Row) -> None:
        """Add the image and the annotations of a record."""
        extra, boxes = row.extra, iter(target_boxes(row.example.target))
        self._put("images", extra["image_place"], extra["image"])
        for position, annotation in zip(extra["places"], extra["annotations"], strict=True):
            box = None if is_crowd(annotation) else next(boxes)
            exact = {"bbox": _bbox(box)} if box and annotation["bbox"] is None else {}
            self._put("annotations", position, annotation | exact)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            for i, (key, value) in enumerate(self.keys.items()):
                file.write(f"{', ' if i else '{'}{json.dumps(key)}: ")
                if key not in ITEM_KEYS:
                    file.write(json.dumps(value))
                    continue
                items = self.database.execute("SELECT json FROM items WHERE key = ? ORDER BY position", (key,))
                file.write("[")
                for j, (item,) in enumerate(items):
                    file.write((", " if j else "") + item)
                file.write("]")
            file.write("}")
        partial.replace(path)

    def _put(self, key: str, position: int, value: Any) -> None:
        self.database.execute("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", (key, position, json.dumps(value)))


def _box(bbox: list[float], label: str) -> Box:
    x, y, width, height = map(float, bbox)
    return Box((x, y, x + width, y + height), label)


def _bbox(box: Box) -> list[float]:
    x1, y1, x2, y2 = box.coords
    return [x1, y1, x2 - x1, y2 - y1]


def _without_bbox(annotation: dict[str, Any], box: Box | None) -> dict[str, Any]:
    """An annotation with its bbox set to null if ``box`` reproduces the same numbers, of the same types."""
    exact = box is not None and repr(_bbox(box)) == repr(annotation["bbox"])
    return annotation | {"bbox": None} if exact else annotation


COCO = Format(
    "COCO detection: one referred detection per image and category",
    units,
    convert,
    options={"question": QUESTION},
    header=header,
    restore=restore,
)
