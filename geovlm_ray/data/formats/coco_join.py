"""Join the items of a COCO file, which come in any order, by image and category."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.json_members import json_members
from geovlm_ray.data.formats.spool import Spool
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.tasks.boxes import MAX_COORDINATE

ARRAYS = ("images", "annotations", "categories")
Id = int | str


@dataclass(frozen=True)
class Group:
    """The annotations of one category in one image.

    ``image`` and ``annotations`` are pickled as read; ``image_position`` and ``positions`` are their indices in the
    lists of the file. ``licences`` maps the ``repr`` of the file's licence ids to licence names.
    """

    image: bytes
    image_position: int
    category: str
    licences: Mapping[str, str]
    annotations: tuple[bytes, ...]
    positions: tuple[int, ...]


class Join:
    """The items of one file, indexed by image and category."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.images, self.annotations = Spool(), Spool()
        self.categories: list[Any] = []
        self.image_codes: dict[Id, int] = {}
        self.category_codes: dict[Id, int] = {}
        self.image_at: dict[int, int] = {}
        self.category_names: dict[int, str] = {}
        self.image_positions = array("q")
        # Per annotation: position in the file, image code, category code, crowd flag.
        self.columns = array("q")

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
        positions, images, categories, _ = self._columns()
        for i in np.flatnonzero((images < 0) | (categories < 0)).tolist():
            annotation = self.annotations[i]
            key, kind = ("image_id", "an image") if images[i] < 0 else ("category_id", "a category")
            problem = f"{key}: expected the id of {kind} in the file, found {short_repr(annotation[key])}"
            yield Unit(file, int(positions[i]) + 1, annotation, f"annotations, number {positions[i] + 1}: {problem}")
        licences = self._licences()
        for members in self._grouped():
            first = members[0]
            group = Group(
                image=self.images.pickled(images[first]),
                image_position=self.image_positions[images[first]],
                category=self.category_names[categories[first]],
                licences=licences,
                annotations=tuple(map(self.annotations.pickled, members)),
                positions=tuple(positions[members].tolist()),
            )
            yield Unit(file, int(positions[first]) + 1, group)

    def unconverted(self) -> dict[str, Any]:
        """Data outside the records: keys, categories, unused images and crowd-only annotations, with positions."""
        positions, images, _, crowds = self._columns()
        crowd_only, used = [], np.zeros(len(self.images), dtype=bool)
        for members in self._grouped():
            if crowds[members].all():
                crowd_only += members
            else:
                used[images[members[0]]] = True
        return {
            "keys": self.keys | {"categories": self.categories},
            "images": [[self.image_positions[i], self.images[i]] for i in np.flatnonzero(~used).tolist()],
            "annotations": [[int(positions[i]), self.annotations[i]] for i in crowd_only],
        }

    def _grouped(self) -> Iterator[list[int]]:
        """Indices of the annotations that share image and category, in file order."""
        _, images, categories, _ = self._columns()
        order = np.lexsort((categories, images))
        order = order[(images[order] >= 0) & (categories[order] >= 0)]
        changes = np.flatnonzero(np.diff(images[order]) | np.diff(categories[order])) + 1
        edges = [0, *changes.tolist(), len(order)]
        for start, end in itertools.pairwise(edges):
            if end > start:
                yield order[start:end].tolist()

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Per annotation, int64 [n] each: position, image index, category code (-1 if missing), crowd flag."""
        rows = np.array(self.columns, dtype=np.int64).reshape(-1, 4)
        image_of = np.array([self.image_at.get(c, -1) for c in range(len(self.image_codes))], dtype=np.int64)
        known = np.array([c in self.category_names for c in range(len(self.category_codes))], dtype=bool)
        if not len(rows):
            return rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
        return rows[:, 0], image_of[rows[:, 1]], np.where(known[rows[:, 2]], rows[:, 2], -1), rows[:, 3]

    def _image(self, unit: Unit) -> None:
        code = _code(self.image_codes, field_of(unit.value, "id", (int, str)))
        image_reference(field_of(unit.value, "file_name"))
        for side in ("width", "height"):
            if not 0 < field_of(unit.value, side, (int, float)) <= MAX_COORDINATE:
                raise DataError(f"{side}: expected a positive number of pixels, found {unit.value[side]}")
        if code in self.image_at:
            raise DataError(f"id: expected a unique image id, found {short_repr(unit.value['id'])} again")
        self.image_at[code] = len(self.images)
        self.image_positions.append(unit.number - 1)
        self.images.add(unit.value)

    def _category(self, unit: Unit) -> None:
        self.categories.append(unit.value)
        code = _code(self.category_codes, field_of(unit.value, "id", (int, str)))
        if not field_of(unit.value, "name").strip():
            raise DataError(f"name: expected a non-empty string, found {unit.value['name']!r}")
        if code in self.category_names:
            raise DataError(f"id: expected a unique category id, found {short_repr(unit.value['id'])} again")
        self.category_names[code] = unit.value["name"]

    def _annotation(self, unit: Unit) -> None:
        image = _code(self.image_codes, field_of(unit.value, "image_id", (int, str)))
        category = _code(self.category_codes, field_of(unit.value, "category_id", (int, str)))
        bbox = field_of(unit.value, "bbox", list)
        if len(bbox) != 4 or not all(map(_is_number, bbox)) or bbox[2] <= 0 or bbox[3] <= 0:
            raise DataError(f"bbox: expected x, y and a positive width and height, found {short_repr(bbox)}")
        self.columns.extend((unit.number - 1, image, category, is_crowd(unit.value)))
        self.annotations.add(unit.value)

    def _licences(self) -> dict[str, str]:
        entries = self.keys.get("licenses")
        licences = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        return {repr(e.get("id")): str(e.get("name") or e.get("url") or "") for e in licences}


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation marks a crowd, whose members have no individual boxes."""
    return annotation.get("iscrowd") in (1, True)


def _code(codes: dict[Id, int], id: Id) -> int:
    return codes.setdefault(id, len(codes))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_COORDINATE <= value <= MAX_COORDINATE
