"""Scenes of any size: windows, composites, georeference, change pairs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.data.geo.areas import touched_cells
from geovlm_ray.data.geo.composites import Composite, Renderer
from geovlm_ray.data.geo.scene import Scene, Window
from geovlm_ray.data.geo.windows import covering_windows, number_of_windows
from geovlm_ray.serving.predict.pairs import align
from tests.unit.oracle import PLACE, TURNED, UTM, write_scene


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 700), st.floats(0, 0.99))
def test_windows_cover_the_scene_and_overlap(width: int, height: int, side: int, share: float) -> None:
    lap = int(share * side)
    if number_of_windows(width, height, side, lap) > 3000:
        return
    windows = list(covering_windows(width, height, side, lap))
    assert len(windows) == len(set(windows)) == number_of_windows(width, height, side, lap)
    for low, high, length in (("left", "right", width), ("top", "bottom", height)):
        spans = sorted({(getattr(w, low), getattr(w, high)) for w in windows})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(end - start == min(side, length) for start, end in spans)
        assert all(before[1] - after[0] >= lap for before, after in itertools.pairwise(spans))


def test_window_of_a_scene_is_that_part_of_its_pixels(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 700, 500, [(100, 50, 140, 90)])
    with rasterio.open(path) as file:
        pixels = file.read()
    with Scene(str(path)) as scene:
        assert (scene.width, scene.height, scene.bands) == (700, 500, 3)
        assert scene.georeference is not None
        assert scene.georeference.crs == UTM
        assert scene.georeference.metres_per_pixel(700, 500) == pytest.approx(0.5)
        found = scene.read((3, 1), Window(90, 40, 60, 70))
        assert np.array_equal(found, pixels[[2, 0], 40:110, 90:150].transpose(1, 2, 0))
        assert max(scene.read((1,), side=64).shape) == 64
        with pytest.raises(DataError, match="expected bands among 1 to 3, found 4"):
            scene.read((4,))


def test_picture_without_georeference_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with Scene(str(tmp_path / "a.png")) as scene:
        assert (scene.width, scene.georeference) == (30, None)


def test_files_that_refer_to_others_are_refused(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.tif", 50, 50)
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(f"<VRTDataset rasterXSize='50' rasterYSize='50'><!-- {source} --></VRTDataset>")
    with pytest.raises(DataError, match=r"scene\.vrt: expected a raster file \(GTiff, .*\), found b'<VRT"):
        Scene(str(vrt))
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises(DataError, match=r"scene\.tif: expected a raster that GDAL reads"), Scene(str(source)) as scene:
        scene.read((1,))


def test_blocks_that_take_too_much_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    tiles = {"tiled": True, "blockxsize": 29_984, "blockysize": 29_984, "compress": "deflate"}
    write_empty = {"width": 30_000, "height": 30_000, "count": 1, "dtype": "uint8", **tiles}
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **write_empty):
        pass
    assert path.stat().st_size < 2**20
    message = r"one\.tif: expected blocks of at most 512 MiB, found 857 MiB \(29984 x 29984 pixels\)"
    with pytest.raises(DataError, match=message):
        Scene(str(path))


def test_windows_of_a_scene_are_stretched_alike(tmp_path: Path) -> None:
    values = np.arange(400 * 300, dtype=np.uint16).reshape(300, 400)
    path = write_scene(tmp_path / "scene.tif", 400, 300, count=1, dtype="uint16")
    with rasterio.open(path, "r+") as file:
        file.write(values, 1)
    with Scene(str(path)) as scene:
        renderer = Renderer(scene, Composite.default(scene))
        whole, _ = renderer.render()
        part, has_data = renderer.render(Window(40, 100, 64, 64))
        fixed = Renderer(scene, Composite((1,)), value_range=(0, 255)).render(Window(0, 0, 400, 1))[0]
    assert has_data
    assert np.array_equal(part, whole[100:164, 40:104])
    assert np.array_equal(fixed[0, :256, 0], np.arange(256))


def test_difference_and_missing_data(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 64, 64, count=2, dtype="float32", nodata=-1)
    bands = np.stack([np.full((64, 64), 3.0), np.full((64, 64), 1.0)]).astype(np.float32)
    bands[:, :32] = -1
    with rasterio.open(path, "r+") as file:
        file.write(bands)
    with Scene(str(path)) as scene:
        renderer = Renderer(scene, Composite.parse("1/2"))
        picture, has_data = renderer.render()
        assert has_data
        assert not picture[:32].any()
        # (3 - 1) / (3 + 1) = 0.5 of -1 to 1.
        assert (picture[32:] == round(0.75 * 255)).all()
        assert renderer.render(Window(0, 0, 64, 16))[1] is False


@pytest.mark.parametrize("text", ["", "0", "1,2", "a", "1/0", "1,2,3,4", "-1", "1/2/3"])
def test_unknown_bands_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--bands: expected R,G,B, one band, or A/B"):
        Composite.parse(text)


def test_later_scene_is_warped_onto_the_earlier_one(tmp_path: Path) -> None:
    square = (200.0, 120.0, 260.0, 180.0)
    earlier = write_scene(tmp_path / "earlier.tif", 400, 300, [square])
    # The same ground at twice the pixels, upright, 10 metres further west and north.
    upright = Affine.translation(500_000 - 150, 4_100_000 + 150) @ Affine.scale(0.25, -0.25)
    later = write_scene(tmp_path / "later.tif", 1600, 1400, transform=upright)
    corners = PLACE.coordinates(np.array([[square[i], square[j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))]))
    with rasterio.open(later, "r+") as file:
        mask = rasterio.features.rasterize(
            [{"type": "Polygon", "coordinates": [corners.tolist()]}], file.shape, transform=upright
        )
        file.write(np.repeat(mask[None] * np.uint8(250), 3, axis=0))
    with Scene(str(earlier)) as first, Scene(str(later)) as second:
        align(second, first)
        assert (second.width, second.height, second.georeference) == (400, 300, first.georeference)
        bright = second.read((1,))[..., 0].filled(0) > 125
    rows, columns = np.nonzero(bright)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx(square, abs=1.01)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_what_lies_outside_of_a_warped_scene_is_masked(dtype: str, tmp_path: Path) -> None:
    earlier = write_scene(tmp_path / "earlier.tif", 200, 200, dtype=dtype)
    shifted = TURNED @ Affine.translation(10, 0)
    later = write_scene(tmp_path / "later.tif", 200, 200, dtype=dtype, transform=shifted)
    with Scene(str(earlier)) as first, Scene(str(later)) as second:
        align(second, first)
        outside = np.ma.getmaskarray(second.read((1,)))[..., 0]
        assert outside.sum() == pytest.approx(2000, abs=400)
        assert not Renderer(second, Composite.default(second)).render(Window(0, 0, 8, 200))[1]


def test_later_scene_with_an_alpha_band_is_warped(tmp_path: Path) -> None:
    earlier = write_scene(tmp_path / "earlier.tif", 100, 100)
    shifted = TURNED @ Affine.translation(10, 0)
    later = write_scene(tmp_path / "later.tif", 100, 100, count=4, transform=shifted, photometric="rgb", alpha="yes")
    with Scene(str(earlier)) as first, Scene(str(later)) as second:
        align(second, first)
        assert second.georeference == first.georeference


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_grids_in_degrees_are_compared_in_pixels(shift: float, tmp_path: Path) -> None:
    grid = Affine.translation(15, 37) @ Affine.scale(2.7e-6, -2.7e-6)
    earlier = write_scene(tmp_path / "earlier.tif", 200, 200, crs="EPSG:4326", transform=grid)
    moved = grid @ Affine.translation(-shift, -shift)
    later = write_scene(tmp_path / "later.tif", 200, 200, [(100, 100, 120, 120)], crs="EPSG:4326", transform=moved)
    with Scene(str(earlier)) as first, Scene(str(later)) as second:
        align(second, first)
        rows, columns = np.nonzero(second.read((1,))[..., 0].filled(0) > 200)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx([100 - shift] * 2 + [120 - shift] * 2, abs=1.01)


def test_numbers_that_are_not_finite_are_no_data(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 100, 50, dtype="float32")
    with rasterio.open(path, "r+") as file:
        values = file.read()
        values[:, :, :50], values[:, :10, 60] = np.nan, np.inf
        file.write(values)
    with Scene(str(path)) as scene:
        renderer = Renderer(scene, Composite.default(scene))
        assert not renderer.render(Window(0, 0, 50, 50))[1]
        assert renderer.render(Window(50, 0, 50, 50))[1]


def test_complex_numbers_are_shown_by_their_amplitude(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    amplitude = rng.uniform(1, 9, (40, 60))
    pictures = []
    for name, values in (("sar", amplitude * np.exp(2j * np.pi * rng.uniform(size=(40, 60)))), ("plain", amplitude)):
        form = {"width": 60, "height": 40, "count": 1, "dtype": "complex64" if name == "sar" else "float32"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **form) as file:
            file.write(values.astype(form["dtype"]), 1)
        with Scene(str(tmp_path / f"{name}.tif")) as scene:
            pictures.append(Renderer(scene, Composite.default(scene)).render()[0].astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_palette_picture_has_its_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
        (40, 40), Image.Resampling.NEAREST
    )
    indexed = colours.quantize(16)
    indexed.save(tmp_path / "indexed.png")
    with Scene(str(tmp_path / "indexed.png")) as scene:
        shown, _ = Renderer(scene, Composite.default(scene)).render()
    assert np.array_equal(shown, np.asarray(indexed.convert("RGB")))


def test_metres_in_web_mercator_are_metres_on_the_ground(tmp_path: Path) -> None:
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:3857", [10.0], [60.0])
    mercator = Affine.translation(x, y) @ Affine.scale(1.0, -1.0)
    path = write_scene(tmp_path / "scene.tif", 100, 100, crs="EPSG:3857", transform=mercator)
    with Scene(str(path)) as scene:
        assert scene.georeference is not None
        assert scene.georeference.metres_per_pixel(100, 100) == pytest.approx(0.5, rel=0.01)
        a, b = scene.metres(np.array([[10.0, 10.0], [50.0, 40.0]]))
        assert np.hypot(*(b - a)) == pytest.approx(25, rel=0.01)


def test_pairs_that_do_not_fit_are_refused_with_their_overlap(tmp_path: Path) -> None:
    first = write_scene(tmp_path / "a.tif", 200, 200)
    moved = write_scene(tmp_path / "b.tif", 200, 200, transform=TURNED @ Affine.translation(150, 0))
    Image.new("RGB", (200, 100)).save(tmp_path / "c.png")
    with Scene(str(first)) as a, Scene(str(moved)) as b, Scene(str(tmp_path / "c.png")) as c:
        with pytest.raises(
            DataError, match=r"b\.tif: expected a scene that covers at least 50% of .*a\.tif, found 25%"
        ):
            align(b, a)
        with pytest.raises(DataError, match=r"c\.png: expected 200 x 200 pixels as .*a\.tif.*found 200 x 100"):
            align(c, a)


def test_scene_with_control_points_alone_says_so(tmp_path: Path) -> None:
    corners = ((0, 0, 15.0, 37.0), (0, 50, 15.1, 37.0), (50, 0, 15.0, 36.9))
    points = [GroundControlPoint(row, column, x, y) for row, column, x, y in corners]
    form = {"width": 50, "height": 50, "count": 1, "dtype": "uint8", "gcps": points, "crs": "EPSG:4326"}
    with rasterio.open(tmp_path / "sar.tif", "w", driver="GTiff", **form) as file:
        file.write(np.ones((1, 50, 50), np.uint8))
    with Scene(str(tmp_path / "sar.tif")) as scene:
        assert scene.georeference is None
        assert scene.has_control_points
    with Scene(str(write_scene(tmp_path / "scene.tif", 50, 50))) as scene:
        assert not scene.has_control_points


def test_georeference_and_nodata_in_a_file_beside_the_raster_are_read(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(1, 255, (20, 30, 3), dtype=np.uint8)
    picture[:, :9] = 0
    Image.fromarray(picture).save(tmp_path / "a.png")
    with rasterio.open(tmp_path / "a.png", "r+") as file:
        file.crs, file.transform, file.nodata = UTM, TURNED, 0
    assert (tmp_path / "a.png.aux.xml").is_file()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with Scene(str(tmp_path / "a.png")) as scene:
        assert scene.georeference == PLACE
        assert np.ma.getmaskarray(scene.read((1,))).sum() == 20 * 9
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", ["metadata", "aux.xml", "ovr", "msk"])
def test_overviews_elsewhere_are_refused(place: str, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 200, 200)
    elsewhere = f"<VRTDataset rasterXSize='50' rasterYSize='50'><!-- {tmp_path} --></VRTDataset>"
    if place == "metadata":
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/vsicurl/http://127.0.0.1/a.tif")
    elif place == "aux.xml":
        text = '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/a.tif</MDI></Metadata>'
        (tmp_path / "scene.tif.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")
    else:
        (tmp_path / f"scene.tif.{place}").write_text(elsewhere)
    with pytest.raises(DataError, match=r"scene\.tif: expected overviews in the file|expected a raster file"):
        Scene(str(path))


ACROSS_180 = [
    ("EPSG:32701", -179.99, -17, 10.0),
    ("EPSG:32760", 179.99, -17, 10.0),
    ("EPSG:3857", 179.995, -17, 10.0),
    ("EPSG:4326", 179.995, -17, 1e-4),
    ("EPSG:3413", 179.99, 82, 10.0),
]


def around(path: Path, crs: str, longitude: float, latitude: float, pixel: float) -> Path:
    """A scene of 1000 x 1000 pixels around a place."""
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [longitude], [latitude])
    place = Affine(pixel, 0, x - 500 * pixel, 0, -pixel, y + 500 * pixel)
    return write_scene(path, 1000, 1000, crs=crs, transform=place)


@pytest.mark.parametrize(("crs", "longitude", "latitude", "pixel"), ACROSS_180)
def test_scene_across_the_antimeridian_has_its_size(
    crs: str, longitude: float, latitude: float, pixel: float, tmp_path: Path
) -> None:
    path = around(tmp_path / "scene.tif", crs, longitude, latitude, pixel)
    with Scene(str(path)) as scene:
        assert scene.georeference is not None
        assert scene.georeference.metres_per_pixel(1000, 1000) == pytest.approx(10, rel=0.1)
        sides = np.diff(scene.metres(np.array([[0.0, 0.0], [1000.0, 0.0], [1000.0, 1000.0]])), axis=0)
        assert np.hypot(*sides.T) == pytest.approx(1e4, rel=0.12)
        cells = touched_cells(scene, "a", list(covering_windows(1000, 1000, 200, 0)), side=8000.0)
    assert max(map(len, cells)) <= 6


def test_one_place_at_the_antimeridian_is_in_the_same_cells_on_both_grids(tmp_path: Path) -> None:
    touched = []
    for crs, longitude in (("EPSG:32701", -179.999), ("EPSG:32760", -179.999), ("EPSG:32760", 179.999)):
        path = around(tmp_path / f"{crs[5:]}.tif", crs, longitude, -17, 1.0)
        with Scene(str(path)) as scene:
            touched.append(touched_cells(scene, "a", [Window(0, 0, 1000, 1000)], side=8000.0)[0])
    assert touched[0] == touched[1] == touched[2]
    assert len({column for _, _, column in touched[0]}) == 2
