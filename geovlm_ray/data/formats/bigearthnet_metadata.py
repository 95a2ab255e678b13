"""The metadata table of BigEarthNet, version 2 (Clasen et al., 2024; bigearth.net): patches with classes and splits.

``metadata.parquet`` has the columns ``patch_id``, ``labels`` (names of the 19 classes), ``split``, ``country`` and
``s1_name``. The bands of a patch are in ``BigEarthNet-S2/<tile>/<patch_id>`` and ``BigEarthNet-S1/<scene>/<s1_name>``,
where tile and scene are the names without the last two or three numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.files import normalize_split
from geovlm_ray.data.formats.streams import relative
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_19

TABLE = "metadata.parquet"
COLUMNS = ("patch_id", "labels", "split", "country", "s1_name")
ROOTS = {"patch_id": ("BigEarthNet-S2", "S2", "."), "s1_name": ("BigEarthNet-S1", "S1", ".")}
BATCH_ROWS = 4_096
_NAME_PARTS = range(2, 5)
"""Numbers at the end of a patch's name that the name of its tile or scene lacks."""


@dataclass(frozen=True)
class ListedPatch:
    """A patch in the table: its folders, its classes, and where it belongs."""

    name: str
    folders: tuple[Path, ...]
    labels: tuple[str, ...]
    split: str
    country: str


def table_of(source: Source) -> Path | None:
    """The metadata table of a source; None if it has none, as in version 1."""
    path = source.path if source.path.is_file() else source.path / TABLE
    return path if path.is_file() else None


def listed_patches(table: Path, source: Source) -> Iterator[Unit]:
    """The patches of a table; those without a folder have no value."""
    name, number = relative(table, source), 0
    try:
        with pq.ParquetFile(table) as file:
            columns = [column for column in COLUMNS if column in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield Unit(name, number, _patch(row, source))
                    except DataError as error:
                        yield Unit(name, number, row, str(error))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        yield Unit(name, number + 1, problem=f"expected a metadata table; nothing after it was read: {reason}")


def _patch(row: Mapping[str, Any], source: Source) -> ListedPatch | None:
    """The patch of a row; None if it has no folder."""
    name = field_of(dict(row), "patch_id")
    labels = field_of(dict(row), "labels", list)
    unknown = [label for label in labels if label not in BIGEARTHNET_19]
    if unknown or not labels:
        found = short_repr(unknown[0] if unknown else labels)
        raise DataError(f"labels: expected names of the 19 classes, found {found}")
    folders = [folder for key in ROOTS if (folder := _folder(row.get(key), ROOTS[key], source)) is not None]
    if not folders:
        return None
    split = normalize_split(field_of(dict(row), "split")) if row.get("split") is not None else "train"
    country = row.get("country")
    return ListedPatch(name, tuple(folders), tuple(labels), split, country if isinstance(country, str) else "")


def _folder(name: Any, roots: tuple[str, ...], source: Source) -> Path | None:
    """The folder of a patch by its name, below one of the roots and, if there is one, below its tile."""
    if name is None:
        return None
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise DataError(f"expected the name of a patch, found {short_repr(name)}")
    words = name.split("_")
    tiles = [".", *("_".join(words[:-n]) for n in _NAME_PARTS if len(words) > n)]
    for root in roots:
        for tile in tiles:
            folder = source.folder / root / tile / name
            if folder.is_dir() and folder.resolve().is_relative_to(source.folder.resolve()):
                return folder
    return None
