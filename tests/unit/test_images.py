"""Image loading: every supported format becomes RGB; corrupt and hostile files raise a `DataError` that names them."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.pixels import PixelSettings, to_rgb
from geovlm_ray.data.images import image_size, load_image, resolve
from tests.rs import RS, needs_rs

RGB = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
RAMP = np.arange(600, dtype=np.uint16).reshape(20, 30)
GDAL_NODATA = 42113
DEFAULT = PixelSettings()


def pixels_of(path: Path, settings: PixelSettings = DEFAULT) -> np.ndarray:
    """Pixels of a file loaded by `load_image`; also checks its size against `image_size`."""
    image = load_image(str(path), settings)
    assert image.mode == "RGB"
    assert image.size == image_size(str(path))
    return np.asarray(image)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, extra_chunks: bytes = b"", bits: int = 8, colour_type: int = 2, rows: bytes | None = None
) -> bytes:
    """A PNG file with the given header; all pixels are zero if ``rows`` is None."""
    rows = bytes(height * (1 + width * 3)) if rows is None else rows
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + extra_chunks + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "I;16", "F", "1"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr", "F") else "image.png")
    Image.fromarray(RGB).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode).save(path)
    assert pixels_of(path).std() > 20


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "PPM", "TIFF"])
def test_format_is_detected_from_the_content(format: str, tmp_path: Path) -> None:
    smooth = Image.fromarray(np.full((20, 30, 3), (10, 120, 200), np.uint8))
    for name in ("no_suffix", "image.tif", "image.png", "image.jpg"):
        smooth.save(tmp_path / name, format)
        assert abs(pixels_of(tmp_path / name).astype(int) - (10, 120, 200)).max() <= 9


@contextmanager
def counted_opens(path: Path) -> Iterator[list[str]]:
    """Collect every opening of a file in this process, by an audit hook."""
    opened: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0] and event == "open" and str(arguments[0]) == str(path):
            opened.append(event)

    sys.addaudithook(hook)
    try:
        yield opened
    finally:
        active[0] = False


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "deep.png", "a.gif", "a.bmp", "a.webp", "a.avif", "a.jp2", "a.ppm", "a.tif"]
)
def test_file_is_opened_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "deep.png":
        path.write_bytes(png(64, 48, bits=16, rows=bytes(48 * (1 + 64 * 6))))
    else:
        Image.new("RGB", (64, 48), "red").save(path)
    for read in (lambda: load_image(str(path), at_least=20), lambda: image_size(str(path))):
        with counted_opens(path.resolve()) as opened:
            read()
        assert len(opened) == 1


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 51
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png")[0, :3, 0].tolist() == [0, 40, 200]
    palette = Image.fromarray(RGB).convert("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((3, 4)))
    assert pixels_of(tmp_path / "p.png")[4, 3].tolist() == [0, 0, 0]


def test_bands_setting_selects_channels(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, RGB[..., 0] // 2])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(pixels_of(tmp_path / "a.png", PixelSettings((4, 3, 1))), rgba[..., [3, 2, 0]])
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"image .*grey\.png: pixels\.bands: .* 1 to 1, found 2"):
        load_image(str(tmp_path / "grey.png"), PixelSettings((2,)))


@pytest.mark.parametrize(("colour_type", "bands"), [(0, 1), (2, 3), (6, 4)])
def test_16_bit_png_keeps_its_depth(colour_type: int, bands: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(900, 1000, (20, 30, bands)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(30, 20, bits=16, colour_type=colour_type, rows=rows))
    assert np.array_equal(pixels_of(tmp_path / "a.png"), to_rgb(values, DEFAULT))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_orientation_tag_is_applied(orientation: int, name: str, tmp_path: Path) -> None:
    upright = np.zeros((20, 30), np.uint8)
    upright[2:8, 3:12] = 255
    transforms = [lambda a: a, np.fliplr, lambda a: a[::-1, ::-1], np.flipud, np.transpose]
    transforms += [lambda a: np.rot90(a, 1), lambda a: np.transpose(a)[::-1, ::-1], lambda a: np.rot90(a, -1)]
    stored = np.ascontiguousarray(transforms[orientation - 1](upright))
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, stored, extratags=[(274, 3, 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.dstack([stored] * 3)).save(tmp_path / name, exif=exif, quality=95)
    assert abs(pixels_of(tmp_path / name)[..., 0].astype(int) - upright).mean() < 8


def test_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        red, green, blue = pixels_of(tmp_path / name)[3, 3].tolist()
        assert red > 240
        assert max(green, blue) < 10


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 2), (20, 30, 3), (20, 30, 4), (20, 30, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.complex64])
def test_tiff_with_any_band_count_and_dtype(shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    planar = "contig" if len(shape) == 3 else None
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig=planar)
    assert np.array_equal(pixels_of(tmp_path / "a.tif"), to_rgb(np.atleast_3d(values), DEFAULT))


@pytest.mark.parametrize(
    "layout",
    [
        {"planarconfig": "separate", "photometric": "minisblack"},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"rowsperstrip": 3, "compression": "lzma"},
        {},
    ],
)
def test_tiff_with_any_layout(layout: dict[str, Any], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (12, 40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, **layout)
    settings = PixelSettings((4, 3, 2), value_range=(0, 4000))
    assert np.array_equal(pixels_of(tmp_path / "a.tif", settings), to_rgb(np.moveaxis(values, 0, 2), settings))
    with pytest.raises(DataError, match=r"image .*a\.tif: .* 1 to 12, found 13"):
        load_image(str(tmp_path / "a.tif"), PixelSettings((13,)))


NUMERIC_MODES, ALL_MODES = ("I;16", "F"), ("RGB", "L", "I;16", "F", "P", "CMYK", "1")
COMPRESSIONS = [(c, m) for c in ("tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma") for m in ALL_MODES]
COMPRESSIONS += [("jpeg", m) for m in ("RGB", "L", "CMYK")] + [("group4", "1")]


@pytest.mark.parametrize(("compression", "mode"), COMPRESSIONS)
def test_tiff_with_any_compression_that_pillow_writes(compression: str, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(RAMP) if mode in NUMERIC_MODES else Image.fromarray((RAMP // 3).astype(np.uint8))
    image = image.convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    values = np.asarray(image if mode in NUMERIC_MODES else image.convert("RGB"))
    expected = to_rgb(np.atleast_3d(values), DEFAULT)
    rgb = pixels_of(tmp_path / "a.tif").astype(int)
    assert abs(rgb - expected).max() <= (12 if compression == "jpeg" else 0)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "lerc", "deflate"])
def test_compressed_multiband_tiff(compression: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (40, 50, 6)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", values, compression=compression, planarconfig="contig", photometric="minisblack"
    )
    settings = PixelSettings((4, 3, 2), value_range=(0, 4000))
    assert np.array_equal(pixels_of(tmp_path / "a.tif", settings), to_rgb(values, settings))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[200:-200] = bytes(len(content) - 400)
    (tmp_path / "b.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"image .*b\.tif"):
        load_image(str(tmp_path / "b.tif"), settings)


def test_nodata_tag_of_a_tiff_is_applied(tmp_path: Path) -> None:
    values = np.where(RAMP < 300, -9999, RAMP).astype(np.int16)
    for text in ("-9999", "-9999.0 "):
        tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(GDAL_NODATA, 2, 0, text, True)])
        rgb = pixels_of(tmp_path / "a.tif")
        assert not rgb[:10].any()
        assert np.array_equal(rgb[10:], to_rgb(values[10:, :, None], DEFAULT))
    tifffile.imwrite(tmp_path / "b.tif", values, extratags=[(GDAL_NODATA, 2, 0, "1.#QNAN", True)])
    assert pixels_of(tmp_path / "b.tif")[10:].min() > 200


def test_array_written_by_tifffile_is_one_image(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (40, 50, 13)).astype(np.uint16)
    settings = PixelSettings((13, 7, 1), value_range=(0, 4000))
    for array in (values, np.moveaxis(values, 2, 0)):
        tifffile.imwrite(tmp_path / "a.tif", array)
        assert np.array_equal(pixels_of(tmp_path / "a.tif", settings), to_rgb(values, settings))
    tifffile.imwrite(tmp_path / "sequence.tif", np.stack([RGB, RGB[::-1]]), photometric="rgb")
    assert np.array_equal(pixels_of(tmp_path / "sequence.tif"), RGB)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "lzw.tif", "a.webp", "a.gif", "a.bmp"])
def test_truncated_image_is_named_in_the_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    image.save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    content = path.read_bytes()
    for length in (0, 3, 7, 30, len(content) // 3, len(content) - 100):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"image .*{name}: "):
            load_image(str(path))


def test_corrupt_images_raise_only_data_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "tifffile"):
        intact = io.BytesIO()
        if format == "tifffile":
            tifffile.imwrite(
                intact, np.stack([RAMP] * 5), compression="zlib", extratags=[(GDAL_NODATA, 2, 0, "7", True)]
            )
        else:
            Image.fromarray(RGB).save(intact, format)
        for _ in range(60):
            content = bytearray(intact.getvalue())
            for offset in rng.integers(0, len(content), 3):
                content[offset] = rng.integers(256)
            path.write_bytes(content)
            with suppress(DataError):
                load_image(str(path))


def test_large_jpegs_are_downscaled_during_decoding(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:1800, 0:2100]
    waves = [128 + 60 * np.sin(rows / (9 + k)) + 60 * np.cos(columns / (15 - k)) for k in range(3)]
    image = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))
    image.save(tmp_path / "a.jpg", quality=95)
    reduced = load_image(str(tmp_path / "a.jpg"), at_least=400)
    assert reduced.size == (1050, 900)
    small, full = (np.asarray(i.resize((400, 400)), dtype=int) for i in (reduced, load_image(str(tmp_path / "a.jpg"))))
    assert abs(small - full).max() <= 8
    assert load_image(str(tmp_path / "a.jpg"), PixelSettings(percentiles=(1, 99)), 400).size == (2100, 1800)


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    Image.fromarray(RGB).save(tmp_path / "secret.png")
    Image.fromarray(RGB).save(root / "inside" / "a.png")
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(tmp_path, root / "folder")
    os.symlink(root / "inside", root / "good")
    for good in ("inside/a.png", "good/a.png", "inside/../inside/a.png"):
        assert load_image(f"{root}//{good}").size == (30, 20)
    secret = tmp_path / "secret.png"
    for bad in ("../secret.png", "link.png", "folder/secret.png", "inside/../../secret.png", str(secret), f"/{secret}"):
        with pytest.raises(DataError, match="found a path outside it"):
            load_image(f"{root}//{bad}")
    with pytest.raises(DataError):
        load_image(f"{root}//{tmp_path}//secret.png")


@pytest.mark.parametrize(
    "reference", ["", "absent.png", "a\0b", "x" * 5000, "loop", "folder", "fifo", "https://a.b/c.png"]
)
@pytest.mark.parametrize("with_root", [False, True])
def test_reference_that_is_not_a_file_is_an_error(
    reference: str, with_root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="expected"):
        resolve(f".//{reference}" if with_root else reference)


def test_file_that_is_not_an_image_is_an_error(tmp_path: Path) -> None:
    page = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for name, content in (("a.eps", page), ("b.png", page), ("c.jpg", "<html>not found</html>"), ("d.tif", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=rf"image .*{name}: expected a decodable image"):
            load_image(str(tmp_path / name))


@pytest.mark.parametrize(
    "reference", ["scene:", "scene:vqa:0:0", "scene:nothing:0:0:0", "scene:vqa:0:0:9", "scene:vqa:-1:0:0"]
)
def test_invalid_scene_reference_is_an_error(reference: str) -> None:
    with pytest.raises(DataError, match=r"scene:|task"):
        load_image(reference)


def test_scene_size_equals_image_size() -> None:
    assert load_image("scene:vqa:0:0:0").size == image_size("scene:vqa:0:0:0")


@needs_rs
def test_all_real_images_load() -> None:
    paths = sorted(p for p in RS.rglob("*") if p.suffix in (".png", ".jpg", ".tif"))
    assert len(paths) == 95
    for path in paths:
        rgb = pixels_of(path)
        assert min(rgb.shape[:2]) >= 20
        assert rgb.std() > 10 or "label" in str(path)


@needs_rs
def test_real_bands_are_stretched_to_the_full_range() -> None:
    radar = sorted(RS.rglob("*_VV.tif"))
    assert len(radar) == 4
    for path in [*radar, *RS.rglob("*_B0?.tif")]:
        rgb = pixels_of(path)
        assert (rgb.min(), rgb.max()) == (0, 255)
        assert np.ptp(rgb, axis=2).max() == 0
    assert {image_size(str(p)) for p in RS.rglob("*_B01.tif")} == {(20, 20)}
