"""Join the items of a COCO file, which come in any order, by image and category, in a temporary SQLite database."""

from __future__ import annotations

import itertools
import pickle
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.data.records import is_coordinate
from geovlm_ray.tasks.answers.box_dialects import MAX_COORDINATE

ARRAYS = ("images", "annotations", "categories")
_TABLES = """
CREATE TABLE images (id TEXT UNIQUE, position INTEGER, value BLOB);
CREATE TABLE annotations (position INTEGER, image TEXT, category INTEGER, crowd INTEGER, value BLOB);
CREATE TABLE invalid (image TEXT, category INTEGER, UNIQUE (image, category));
"""
_WITH_IMAGE = """
SELECT annotations.*, images.position AS image_position, images.value AS image_value
FROM annotations {} images ON images.id = image ORDER BY {}
"""


@dataclass(frozen=True)
class Group:
    """The annotations of one category in one image.

    ``image`` and ``annotations`` are pickled as read; ``image_position`` and ``positions`` are their indices in the
    lists of the file. ``unclear`` are the other categories annotated in the image, and this one if a box of it is
    invalid or a crowd. ``licences`` maps the ``repr`` of the file's licence ids to licence names.
    """

    image: bytes
    image_position: int
    category: str
    unclear: tuple[str, ...]
    licences: Mapping[str, str]
    annotations: tuple[bytes, ...]
    positions: tuple[int, ...]


class Join:
    """The items of one file, by image and category."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.categories: list[Any] = []
        self.category_names: dict[int, str] = {}
        self.category_codes: dict[int | str, int] = {}
        self.database = sqlite3.connect("")  # an unnamed temporary file
        self.database.row_factory = sqlite3.Row
        self.database.executescript(_TABLES)

    def read(self, path: Path, source: Source) -> Iterator[Unit]:
        """Read a file; yields a unit with a problem for each invalid item."""
        if (link := external_link(path, source)) is not None:
            yield link
            return
        handlers = {"images": self._image, "annotations": self._annotation, "categories": self._category}
        for key, unit in json_members(path, relative(path, source), ARRAYS):
            if unit.problem is not None:
                yield unit
            elif unit.number == 0:
                self.keys[key] = unit.value
            elif key in handlers:
                try:
                    handlers[key](unit)
                except DataError as error:
                    yield replace(unit, problem=f"{key}, number {unit.number}: {error}")
            else:
                break
        if any(self.keys.get(key) != [] for key in ARRAYS):
            found = ", ".join(map(repr, self.keys)) or "no object"
            problem = f"expected a COCO object with the lists {', '.join(ARRAYS)}, found {found}"[:500]
            yield Unit(relative(path, source), 1, problem=problem)

    def groups(self, file: str) -> Iterator[Unit]:
        """The groups, preceded by a problem for each annotation whose image or category is missing."""
        for row in self.database.execute(_WITH_IMAGE.format("LEFT JOIN", "annotations.rowid")):
            if row["image_value"] is None:
                key, kind = "image_id", "an image"
            elif row["category"] not in self.category_names:
                key, kind = "category_id", "a category"
            else:
                continue
            annotation, number = pickle.loads(row["value"]), row["position"] + 1
            problem = f"{key}: expected the id of {kind} in the file, found {short_repr(annotation[key])}"
            yield Unit(file, number, annotation, f"annotations, number {number}: {problem}")
        licences = self._licences()
        for _, groups in itertools.groupby(self._grouped(), key=lambda rows: rows[0]["image"]):
            for rows, unclear in self._with_unclear(list(groups)):
                group = Group(
                    image=rows[0]["image_value"],
                    image_position=rows[0]["image_position"],
                    category=self.category_names[rows[0]["category"]],
                    unclear=unclear,
                    licences=licences,
                    annotations=tuple(row["value"] for row in rows),
                    positions=tuple(row["position"] for row in rows),
                )
                yield Unit(file, group.positions[0] + 1, group)

    def without_annotations(self, file: str) -> Iterator[Unit]:
        """A group without annotations for each image that has none; nothing if the file annotates no image at all."""
        query = """
        SELECT * FROM images WHERE EXISTS (SELECT 1 FROM annotations)
        AND id NOT IN (SELECT image FROM annotations) AND id NOT IN (SELECT image FROM invalid) ORDER BY rowid
        """
        licences = self._licences()
        for row in self.database.execute(query):
            yield Unit(file, row["position"] + 1, Group(row["value"], row["position"], "", (), licences, (), ()))

    def unconverted(self) -> dict[str, Any]:
        """Data outside the records: keys, categories, unused images and crowd-only annotations, with positions."""
        crowd_only: list[sqlite3.Row] = []
        used = set()
        for rows in self._grouped():
            if all(row["crowd"] for row in rows):
                crowd_only += rows
            else:
                used.add(rows[0]["image"])
        images = self.database.execute("SELECT * FROM images ORDER BY rowid")
        return {
            "keys": self.keys | {"categories": self.categories},
            "images": [[row["position"], pickle.loads(row["value"])] for row in images if row["id"] not in used],
            "annotations": [[row["position"], pickle.loads(row["value"])] for row in crowd_only],
        }

    def _with_unclear(self, groups: list[list[sqlite3.Row]]) -> Iterator[tuple[list[sqlite3.Row], tuple[str, ...]]]:
        """The groups of one image, each with its `Group.unclear`."""
        query = "SELECT category FROM invalid WHERE image = ?"
        unclear = {row["category"] for row in self.database.execute(query, (groups[0][0]["image"],))}
        unclear |= {row["category"] for rows in groups for row in rows if row["crowd"]}
        annotated = {rows[0]["category"] for rows in groups}
        for rows in groups:
            codes = unclear | (annotated - {rows[0]["category"]})
            yield rows, tuple(sorted(self.category_names[code] for code in codes & self.category_names.keys()))

    def _grouped(self) -> Iterator[list[sqlite3.Row]]:
        """The annotations that share a known image and category, in file order, with their image."""
        rows = self.database.execute(_WITH_IMAGE.format("JOIN", "images.rowid, category, annotations.rowid"))
        for (_, category), group in itertools.groupby(rows, key=itemgetter("image", "category")):
            if category in self.category_names:
                yield list(group)

    def _image(self, unit: Unit) -> None:
        id = repr(field_of(unit.value, "id", (int, str)))
        image_reference(field_of(unit.value, "file_name"))
        for side in ("width", "height"):
            if not 0 < field_of(unit.value, side, (int, float)) <= MAX_COORDINATE:
                raise DataError(f"{side}: expected a positive number of pixels, found {unit.value[side]}")
        try:
            self.database.execute("INSERT INTO images VALUES (?, ?, ?)", (id, unit.number - 1, _pickled(unit.value)))
        except sqlite3.IntegrityError as error:
            raise DataError(f"id: expected a unique image id, found {short_repr(unit.value['id'])} again") from error

    def _category(self, unit: Unit) -> None:
        self.categories.append(unit.value)
        code = self._code(field_of(unit.value, "id", (int, str)))
        if not field_of(unit.value, "name").strip():
            raise DataError(f"name: expected a non-empty string, found {unit.value['name']!r}")
        if code in self.category_names:
            raise DataError(f"id: expected a unique category id, found {short_repr(unit.value['id'])} again")
        self.category_names[code] = unit.value["name"]

    def _annotation(self, unit: Unit) -> None:
        image = repr(field_of(unit.value, "image_id", (int, str)))
        category = self._code(field_of(unit.value, "category_id", (int, str)))
        bbox = field_of(unit.value, "bbox", list)
        if len(bbox) != 4 or not all(map(is_coordinate, bbox)) or bbox[2] <= 0 or bbox[3] <= 0:
            self.database.execute("INSERT OR IGNORE INTO invalid VALUES (?, ?)", (image, category))
            raise DataError(f"bbox: expected x, y and a positive width and height, found {short_repr(bbox)}")
        row = (unit.number - 1, image, category, is_crowd(unit.value), _pickled(unit.value))
        self.database.execute("INSERT INTO annotations VALUES (?, ?, ?, ?, ?)", row)

    def _code(self, category: int | str) -> int:
        return self.category_codes.setdefault(category, len(self.category_codes))

    def _licences(self) -> dict[str, str]:
        entries = self.keys.get("licenses")
        licences = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        return {repr(e.get("id")): str(e.get("name") or e.get("url") or "") for e in licences}


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation marks a crowd, whose members have no individual boxes."""
    return annotation.get("iscrowd") in (1, True)


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
