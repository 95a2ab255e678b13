"""Records of JSON, JSON lines, Parquet and Arrow files, which all formats of questions and answers share.

Images may be embedded in Parquet and Arrow files; they are extracted into the output folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Source, Unit, short_repr
from geovlm_ray.data.formats.shards import ShardRecord, holds_images, shard_files, shard_units, stored_name
from geovlm_ray.data.formats.streams import json_units, relative

METADATA = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json")
"""Files that the datasets library writes along with shards."""


def record_units(source: Source) -> Iterator[Unit]:
    """Each record of the shards, or, without shards, of the JSON files.

    Raises:
        DataError: the source has both, whose images have different roots.
    """
    shards = shard_files(source)
    if not shards:
        yield from json_units(source)
        return
    if source.path.is_dir():
        json_files = sorted(p for p in source.path.rglob("*.json*") if p.name not in METADATA and p.is_file())
        if json_files:
            raise DataError(
                f"{source.path}: expected shards or JSON files, found both, {relative(shards[0], source)} and "
                f"{relative(json_files[0], source)}; convert them separately"
            )
    for path in shards:
        yield from shard_units(path, source)


def record_of(unit: Unit) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A unit's record, and its embedded images by output path, which replace the images in their columns.

    Raises:
        DataError: the record is not an object, or an image has no known signature.
    """
    value = unit.value
    files: dict[str, bytes] = {}
    if isinstance(value, ShardRecord):
        columns = {column: list(map(stored_name, images)) for column, images in value.images.items()}
        for column, names in columns.items():
            files |= zip(names, value.images[column], strict=True)
        value = value.fields | columns
    if not isinstance(value, dict):
        raise DataError(f"expected an object, found {short_repr(value)}")
    return value, files


def stores_images(source: Source) -> bool:
    """Whether the source has shards with images, which are extracted; others have the paths of images."""
    return any(map(holds_images, shard_files(source)))


def unread_keys(record: Mapping[str, Any], known: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a record that a format does not use; a null counts as absent."""
    return tuple(key for key, value in record.items() if key not in known and value is not None)
