"""The files that a prediction writes, checked before the first window is answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.data.geo.scene import Scene


def quick_look_pictures(out: Path, scenes: int) -> list[Path]:
    """The pictures of the scenes beside a map: ``OUT.png``, ``OUT-2.png``, ..."""
    return [out.with_name(f"{out.stem}{'' if k == 1 else f'-{k}'}.png") for k in range(1, scenes + 1)]


def quick_look_page(out: Path) -> Path:
    """The page beside a map."""
    return out.with_suffix(".html")


def check_outputs(out: Path, pairs: Sequence[Sequence[str]]) -> None:
    """Check that no file of a map replaces a source or a folder, and that the scenes can lie on one map.

    Raises:
        ConfigError: an output is a source or a folder, or some scenes have a georeference and others none.
        DataError: a scene cannot be read, or lies nowhere on the globe.
    """
    sources = {Path(path).resolve() for pair in pairs for path in pair}
    for file in (out, quick_look_page(out), *quick_look_pictures(out, len(pairs))):
        if file.resolve() in sources:
            raise ConfigError(
                f"--out {out}: expected a name or folder whose files replace no source, but {file} is one; a map has "
                "a picture and a page of its name beside it"
            )
        if file.is_dir():
            raise ConfigError(f"--out {out}: expected a file at {file}, found a folder")
    placed = {pair[0]: _is_placed(pair[0]) for pair in pairs}
    if len(set(placed.values())) > 1:
        without = next(path for path, is_placed in placed.items() if not is_placed)
        raise ConfigError(f"--out {out}: expected scenes with a georeference, or all without, found none in {without}")


def _is_placed(path: str) -> bool:
    with Scene(path) as scene:
        if scene.georeference is None:
            return False
        corners = np.array([[0, 0], [scene.width, 0], [scene.width, scene.height], [0, scene.height]])
        try:
            scene.georeference.degrees(corners)
        except DataError as error:
            raise DataError(f"{scene.path}: {error}") from error
        return True
