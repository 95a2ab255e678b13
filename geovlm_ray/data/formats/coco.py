"""COCO detection files (Lin et al., 2014; cocodataset.org, "Data format"): a referred detection for image and category.

A file lists images, annotations and categories in any order and is joined as a whole: the pieces wait in temporary
files, about as large as the source, and memory holds some 100 bytes of each annotation and 300 of each image. What
stands in no record, images without objects above all, goes into the dataset's card, so that the file can be restored.
Annotations of crowds are kept for that, too, but are no objects to find.
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, target_boxes
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.coco_join import Group, Join, is_crowd
from geovlm_ray.data.formats.files import question_about, split_in_name
from geovlm_ray.data.formats.spool import Spool
from geovlm_ray.data.formats.streams import outside, relative, source_files
from geovlm_ray.data.table import Row

QUESTION = "Give me the location of every {label} in the image."


def units(source: Source) -> Iterator[Unit]:
    """The groups of every file, and whatever belongs to none because it is broken."""
    question_about(source, QUESTION, "")
    for path in source_files(source, (".json",)):
        join = Join()
        yield from join.read(path, source)
        yield from join.groups(relative(path, source))


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a group; none where all it holds are crowds."""
    group: Group = unit.value
    image = pickle.loads(group.image)
    annotations = [pickle.loads(a) for a in group.annotations]
    boxes = [None if is_crowd(a) else _box(a["bbox"], group.category) for a in annotations]
    if not any(boxes):
        return
    file, dataset, split = _named(unit.file)
    example = Example(
        id=f"{file}/{image['id']}/{annotations[0]['category_id']}",
        task="referred_object_detection",
        images=(image_reference(image["file_name"]),),
        question=question_about(source, QUESTION, group.category),
        target=tuple(filter(None, boxes)),
        dataset=dataset,
        split=split,
        frame=Frame("pixel", float(image["width"]), float(image["height"])),
    )
    extra = {
        "image": image,
        "image_place": group.image_place,
        "annotations": [_without_bbox(a, box) for a, box in zip(annotations, boxes, strict=True)],
        "places": group.places,
    }
    licence = group.licences.get(repr(image.get("license")), "")
    yield Row(example, licence=licence, extra=extra, parts=len(target_boxes(example.target)))


def header(source: Source) -> dict[str, Any]:
    """What stands outside the records, by file: the values of all keys, images and annotations with their places."""
    files = {}
    for path in source_files(source, (".json",)):
        if outside(path, source) is None:
            join = Join()
            for _ in join.read(path, source):
                pass
            files[relative(path, source)] = join.rest()
    return {"files": files}


def restore(rows: Iterator[Row], header: Mapping[str, Any], path: Path) -> None:
    """Write a COCO file again, or where the source had several, these below the folder ``path``.

    Raises:
        DataError: a record comes from none of them, or a name leads out of the folder.
    """
    files: Mapping[str, Any] = header.get("files", {})
    rebuilt = {name: _Rebuilt(rest) for name, rest in files.items()}
    for row in rows:
        if row.source_file not in rebuilt:
            raise DataError(
                f"record {row.example.id!r}: expected a file of {', '.join(files)}, found {row.source_file!r}"
            )
        rebuilt[row.source_file].add(row)
    for name, file in rebuilt.items():
        out = path if len(rebuilt) == 1 else path / name
        if not out.resolve().is_relative_to(path.resolve()):
            raise DataError(f"expected the name of a file below the source, found {name!r}")
        file.write(out)


class _Rebuilt:
    """A file that is being restored."""

    def __init__(self, rest: Mapping[str, Any]) -> None:
        self.keys: Mapping[str, Any] = rest["keys"]
        self.spools = {"images": Spool(), "annotations": Spool()}
        self.places: dict[str, dict[int, int]] = {"images": {}, "annotations": {}}
        for key in self.spools:
            for place, value in rest[key]:
                self._put(key, place, value)

    def add(self, row: Row) -> None:
        """Take in what a record holds of the file."""
        extra = row.extra
        target = row.example.target
        boxes = iter([b for b in target if isinstance(b, Box)] if isinstance(target, tuple) else [])
        self._put("images", extra["image_place"], extra["image"])
        for place, annotation in zip(extra["places"], extra["annotations"], strict=True):
            whole = annotation
            if not is_crowd(annotation):
                bbox = _bbox(next(boxes))
                whole = annotation | {"bbox": bbox} if annotation["bbox"] is None else annotation
            self._put("annotations", place, whole)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            for i, (key, value) in enumerate(self.keys.items()):
                file.write(f"{', ' if i else '{'}{json.dumps(key)}: ")
                if key not in self.spools:
                    file.write(json.dumps(value))
                    continue
                for j, (_, at) in enumerate(sorted(self.places[key].items())):
                    file.write((", " if j else "[") + json.dumps(self.spools[key][at]))
                file.write("]" if self.places[key] else "[]")
            file.write("}")
        partial.replace(path)

    def _put(self, key: str, place: int, value: Any) -> None:
        if place not in self.places[key]:
            self.places[key][place] = len(self.spools[key])
            self.spools[key].add(value)


@functools.lru_cache(maxsize=64)
def _named(file: str) -> tuple[str, str, str]:
    """What a file's name says: how it begins the ids of its records, its dataset and its split."""
    path = Path(file)
    return path.with_suffix("").as_posix(), path.stem, split_in_name(path.stem)


def _box(bbox: list[float], label: str) -> Box:
    x, y, width, height = map(float, bbox)
    return Box((x, y, x + width, y + height), label)


def _bbox(box: Box) -> list[float]:
    x1, y1, x2, y2 = box.coords
    return [x1, y1, x2 - x1, y2 - y1]


def _without_bbox(annotation: dict[str, Any], box: Box | None) -> dict[str, Any]:
    """An annotation whose bbox is null where its box gives exactly the same numbers, of the same type, again."""
    exact = box is not None and repr(_bbox(box)) == repr(annotation["bbox"])
    return annotation | {"bbox": None} if exact else annotation


COCO = Format(
    "COCO detection: a referred detection for each image and category",
    units,
    convert,
    options={"question": QUESTION},
    header=header,
    restore=restore,
)
