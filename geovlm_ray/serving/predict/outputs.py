"""The files that a prediction writes, checked before the first window is answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.data.geo.scene import Georeference, Scene

MAP_PICTURE = ("Software", "geovlm-ray map")
"""Keyword and text in the PNG files of maps."""
IN_DEGREES = (".geojson", ".csv")
"""Endings of maps that hold longitudes and latitudes; others hold the coordinates of the scene, if it is one CRS."""


def quick_look_pictures(out: Path, scenes: int) -> list[Path]:
    """The pictures of the scenes beside a map: ``OUT.png``, ``OUT-2.png``, ..."""
    return [out.with_name(f"{out.stem}{'' if k == 1 else f'-{k}'}.png") for k in range(1, scenes + 1)]


def quick_look_page(out: Path) -> Path:
    """The page beside a map."""
    return out.with_suffix(".html")


def save_picture(picture: Image.Image, file: Path) -> None:
    """Write the picture of a map as a PNG that `is_map_picture` recognizes."""
    info = PngInfo()
    info.add_text(*MAP_PICTURE)
    picture.save(file, compress_level=1, pnginfo=info)


def is_map_picture(file: Path) -> bool:
    """Whether a file is the picture of a map, by its first bytes."""
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return MAP_PICTURE[1].encode() in content.read(256)


def check_outputs(out: Path, pairs: Sequence[Sequence[str]]) -> None:
    """Check that no file of a map replaces a source or a folder, and that the scenes can lie on one map.

    Raises:
        ConfigError: an output is a source or a folder, or some scenes have a georeference and others none.
        DataError: a scene cannot be read, or the map is in degrees and the scene lies nowhere on the globe.
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
    places = {pair[0]: _place(pair[0]) for pair in pairs}
    without = next((path for path, place in places.items() if not place), None)
    if without and any(places.values()):
        raise ConfigError(f"--out {out}: expected scenes with a georeference, or all without, found none in {without}")
    if out.suffix.lower() in IN_DEGREES or len({place.crs for place, _ in filter(None, places.values())}) > 1:
        for path, place in places.items():
            _check_degrees(path, place)


def _place(path: str) -> tuple[Georeference, np.ndarray] | None:
    """The georeference of a scene and its corners in pixels; None without a georeference."""
    with Scene(path) as scene:
        corners = np.array([[0, 0], [scene.width, 0], [scene.width, scene.height], [0, scene.height]])
        return None if scene.georeference is None else (scene.georeference, corners)


def _check_degrees(path: str, place: tuple[Georeference, np.ndarray] | None) -> None:
    if place:
        georeference, corners = place
        try:
            georeference.degrees(corners)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
