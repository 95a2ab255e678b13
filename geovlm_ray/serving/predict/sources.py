"""Raster files of a prediction: files, folders, patterns and converted datasets."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.images import ROOT_END, resolve
from geovlm_ray.data.parquet import QUARANTINE, open_datasets
from geovlm_ray.serving.predict.outputs import is_map_picture

ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".bmp", ".img")
"""Files that are taken from a folder."""
UNFINISHED = ".unfinished"
"""Ending of the folder of a prediction that is not finished, which has pictures of windows."""


def scene_paths(sources: Sequence[str], *, repeated: bool = False) -> list[str]:
    """The raster files of sources, in order: in a folder all with a known ending, in a dataset its images.

    Pictures that predictions write are no sources, unless they are named. Each source is there once, or with
    ``repeated`` as often as it is named.

    Raises:
        DataError: a source is absent or holds no raster.
    """
    found: list[str] = []
    for source in sources:
        paths = dict.fromkeys(_paths(source))
        if not paths:
            raise DataError(f"{source}: expected a raster file, a folder of them or a converted dataset, found none")
        found += paths
    return found if repeated else list(dict.fromkeys(found))


def scene_names(paths: Sequence[str]) -> list[str]:
    """The names of scenes: those of their files, with as many folders above as tell different files apart."""
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(set(paths)):
            break
    return names


def _paths(source: str) -> Iterator[str]:
    path = Path(source)
    if path.is_dir():
        if any(shard.name != QUARANTINE for shard in path.rglob("*.parquet")):
            for dataset in open_datasets(path):
                for _, _, row in dataset.rows():
                    yield from (str(resolve(f"{dataset.root}{ROOT_END}{image}")) for image in row.example.images)
            return
        files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS)
        yield from (os.path.realpath(file) for file in files if not _is_output(file))
    elif path.exists():
        yield str(resolve(source))
    else:
        yield from (str(resolve(f)) for f in sorted(glob.glob(source, recursive=True)) if not _is_output(Path(f)))


def _is_output(file: Path) -> bool:
    """Whether a file is of an unfinished prediction, or the picture of a map."""
    return any(parent.name.endswith(UNFINISHED) for parent in file.parents) or is_map_picture(file)
