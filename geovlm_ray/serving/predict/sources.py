"""Raster files of a prediction: files, folders, patterns and converted datasets."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.images import ROOT_END, resolve
from geovlm_ray.data.parquet import QUARANTINE, open_datasets

ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".bmp", ".img")
"""Files that are taken from a folder."""


def scene_paths(sources: Sequence[str]) -> list[str]:
    """The raster files of sources, in order, each once: in a folder all with a known ending, in a dataset its images.

    Raises:
        DataError: a source is absent or holds no raster.
    """
    found: dict[str, None] = {}
    for source in sources:
        paths = dict.fromkeys(_paths(source))
        if not paths:
            raise DataError(f"{source}: expected a raster file, a folder of them or a converted dataset, found none")
        found |= paths
    return list(found)


def _paths(source: str) -> Iterator[str]:
    path = Path(source)
    if path.is_dir():
        if any(shard.name != QUARANTINE for shard in path.rglob("*.parquet")):
            for dataset in open_datasets(path):
                for _, _, row in dataset.rows():
                    yield from (str(resolve(f"{dataset.root}{ROOT_END}{image}")) for image in row.example.images)
            return
        yield from (os.path.realpath(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS)
    elif path.exists():
        yield str(resolve(source))
    else:
        yield from (str(resolve(file)) for file in sorted(glob.glob(source, recursive=True)))
