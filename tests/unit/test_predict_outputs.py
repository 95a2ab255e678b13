"""The files of a map are checked before its first window is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
from PIL import Image

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.serving.predict.outputs import check_outputs
from tests.unit.oracle import TURNED, write_scene


def test_map_whose_picture_would_replace_a_source_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "harbour.png")
    pairs = [(str(tmp_path / "harbour.png"),)]
    check_outputs(tmp_path / "ships.geojson", pairs)
    with pytest.raises(
        ConfigError, match=r"expected a name or folder whose files replace no source, but .*harbour\.png"
    ):
        check_outputs(tmp_path / "harbour.geojson", pairs)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "map-2.png").symlink_to(tmp_path / "harbour.png")
    with pytest.raises(ConfigError, match=r"map-2\.png is one"):
        check_outputs(tmp_path / "a" / "map.csv", pairs * 2)


def test_folder_in_the_place_of_an_output_is_named(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 50, 50)
    (tmp_path / "map.html").mkdir()
    with pytest.raises(ConfigError, match=r"expected a file at .*map\.html, found a folder"):
        check_outputs(tmp_path / "map.gpkg", [(str(scene),)])


def test_scenes_with_and_without_a_georeference_are_refused(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 50, 50)
    Image.new("RGB", (30, 20)).save(tmp_path / "b.png")
    with pytest.raises(
        ConfigError, match=r"expected scenes with a georeference, or all without, found none in .*b\.png"
    ):
        check_outputs(tmp_path / "map.gpkg", [(str(scene),), (str(tmp_path / "b.png"),)])


@pytest.mark.parametrize("crs", ['LOCAL_CS["site",UNIT["metre",1]]', "EPSG:32631"])
def test_scene_that_lies_nowhere_on_the_globe_is_named(crs: str, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 50, 50)
    with rasterio.open(scene, "r+") as file:
        file.crs = crs
        file.transform = TURNED if crs.startswith("LOCAL") else rasterio.Affine(1e9, 0, 1e12, 0, -1e9, 1e12)
    check_outputs(tmp_path / "map.gpkg", [(str(scene),)])
    with pytest.raises(DataError, match=r"scene\.tif: expected coordinates in "):
        check_outputs(tmp_path / "map.geojson", [(str(scene),)])
