"""Images of the field's kinds come in as RGB; broken ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from geovlm_ray.data.images import load_image
from geovlm_ray.errors import DataError

RGB = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.fromarray(RGB).convert("L" if mode == "I;16" else mode).convert(mode).save(path)
    image = load_image(str(path), 28)
    assert (image.mode, image.size) == ("RGB", (28, 28))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 2), (20, 30, 3), (20, 30, 4), (20, 30, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiffs_of_any_bands_and_depth(shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig" if len(shape) == 3 else None
    )
    image = np.asarray(load_image(str(tmp_path / "a.tif")))
    assert image.shape == (20, 30, 3)
    assert image.std() > 0


def test_band_first_tiffs_are_read_as_images(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.asarray(load_image(str(tmp_path / "a.tif"))), RGB)


def test_missing_values_do_not_spoil_the_stretch(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    values[0, 0], values[0, 1] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert np.asarray(load_image(str(tmp_path / "a.tif"))).std() > 50


def test_orientation_tags_are_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(str(tmp_path / "a.jpg")).size == (20, 30)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_truncated_and_absent_images_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match=f"broken{suffix}"):
        load_image(str(path))
    with pytest.raises(DataError, match="absent"):
        load_image(str(tmp_path / f"absent{suffix}"))


def test_a_path_may_not_leave_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    Image.fromarray(RGB).save(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leaves the data root"):
        load_image("../secret.png", root=tmp_path / "root")
