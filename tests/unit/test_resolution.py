"""Images are shown at the configured resolution, boxes follow, and the processor leaves the pictures as they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Example
from geovlm_ray.data.image_cache import ImageCache
from geovlm_ray.data.resolution import Resolution, frames_of, show
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.model.prompts import PromptEncoder

DEFAULT = PixelSettings()
PERCENT = Frame("percent")
Mode = Literal["fixed", "native", "tiles"]
side = st.integers(1, 3000)
fraction = st.floats(0, 1, allow_nan=False).map(lambda v: round(v, 3))


def resolution(mode: Mode, side: int = 448, least: int = 3136, most: int = 1_003_520, tiles: int = 6) -> Resolution:
    """A resolution of pictures whose sides are multiples of 28."""
    return Resolution(mode, side, 28, least, most, tiles)


def example(*images: Path, question: str = "Is there a ship?") -> Example:
    """A record with images."""
    return Example(id="r", task="vqa", images=tuple(map(str, images)), question=question, target="yes")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Noise of many shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for k, (width, height) in enumerate([(50, 50), (301, 199), (1, 1), (7, 900), (1000, 31), (113, 112), (640, 642)]):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(paths[-1])
    return paths


# Boxes and frames


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any frame of a part of an image that is no sliver."""
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    right, bottom = draw(st.floats(left + 0.05, 1)), draw(st.floats(top + 0.05, 1))
    return Frame(
        draw(st.sampled_from(["percent", "permille", "pixel"])), draw(side), draw(side), (left, top, right, bottom)
    )


@given(frames(), frames(), st.tuples(*[st.floats(-50, 150)] * 4), st.floats(-180, 180))
def test_boxes_come_back_from_any_frame(one: Frame, other: Frame, box: tuple[float, ...], angle: float) -> None:
    there = one.convert((*box, angle), other)
    assert there[4] == angle
    assert other.convert(there, one) == pytest.approx((*box, angle), abs=1e-6)


def test_a_window_is_a_part_of_the_whole() -> None:
    tile = Frame("pixel", 448, 448, (0.5, 0.0, 1.0, 0.25))
    assert PERCENT.convert((50, 0, 100, 25), tile) == pytest.approx((0, 0, 448, 448))
    assert PERCENT.convert((75, 12.5, 200, 25, 30), tile) == pytest.approx((224, 224, 1344, 448, 30))
    assert tile.convert((0, 0, 224, 224), Frame("pixel", 4000, 2000)) == pytest.approx((2000, 0, 3000, 250))
    assert Frame("pixel", 4, 2) == Frame(kind="pixel", width=4, height=2)
    for window in ((0, 0, 0, 1), (0.5, 0, 0.2, 1)):
        with pytest.raises(ValueError, match="window"):
            Frame("percent", window=window)


KINDS = ["rgb.png", "radar.tif", "sixteen.tif", "turned.jpg", "large.jpg"]


def drawn(path: Path, box: tuple[int, int, int, int], width: int, height: int) -> None:
    """Write an image that is dark but for a bright box, in pixels of the upright image."""
    canvas = np.full((height, width), 40, np.uint8)
    canvas[box[1] : box[3], box[0] : box[2]] = 220
    if path.name == "radar.tif":
        tifffile.imwrite(path, canvas.astype(np.float32) / 10 - 20)
    elif path.name == "sixteen.tif":
        tifffile.imwrite(path, np.dstack([canvas * np.uint16(40)] * 4), planarconfig="contig", photometric="minisblack")
    elif path.name == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(canvas)).convert("RGB").save(path, exif=exif, quality=95)
    else:
        Image.fromarray(canvas).convert("RGB").save(path)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mode", ["fixed", "native", "tiles"])
def test_a_box_is_found_in_every_picture_that_shows_it(mode: Mode, name: str, tmp_path: Path) -> None:
    width, height = (4003, 2999) if name == "large.jpg" else (1117, 733)
    box = tuple(round(v * n) for v, n in zip((0.31, 0.22, 0.71, 0.58), (width, height) * 2, strict=True))
    drawn(tmp_path / name, box, width, height)
    settings = resolution(mode, most=600 * 400)
    shown, pictures = show(str(tmp_path / name), DEFAULT, settings), frames_of(str(tmp_path / name), settings)
    assert len(shown) == len(pictures) == (1 if mode != "tiles" else 1 + math.prod(settings.grid(width, height)))
    percent = Frame("pixel", width, height).convert(box, PERCENT)
    for picture, frame in zip(shown, pictures, strict=True):
        assert picture.shape == (frame.height, frame.width, 3)
        x1, y1, x2, y2 = PERCENT.convert(percent, frame)
        expected = (max(x1, 0), max(y1, 0), min(x2, frame.width), min(y2, frame.height))
        bright = np.argwhere(picture[..., 0] > 128)
        if expected[0] >= expected[2] or expected[1] >= expected[3]:
            assert not len(bright)
            continue
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        assert (left, top, right, bottom) == pytest.approx(expected, abs=1.5)


# Sizes


@given(side, side, st.integers(4, 4000), st.integers(4, 5000))
def test_native_sizes_are_smart_resizes_and_stay(width: int, height: int, least: int, times: int) -> None:
    least, most = least * 784, least * 784 * times
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(DataError, match="aspect ratio of at most 200"):
            resolution("native", least=least, most=most).native_size(width, height)
        return
    size = resolution("native", least=least, most=most).native_size(width, height)
    theirs = smart_resize(height, width, 28, least, most)[::-1]
    again = smart_resize(size[1], size[0], 28, least, most)[::-1]
    assert again == size
    if smart_resize(theirs[1], theirs[0], 28, least, most)[::-1] == theirs:
        assert size == theirs


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((448, 448), (1, 1)),
        ((600, 600), (1, 1)),
        ((1, 1), (1, 1)),
        ((900, 450), (2, 1)),
        ((450, 900), (1, 2)),
        ((4000, 4000), (2, 2)),
        ((1920, 1080), (2, 1)),
        ((9000, 100), (6, 1)),
        ((1344, 896), (3, 2)),
    ],
)
def test_grids_are_square_ish(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert resolution("tiles").grid(*size) == grid


@given(side, side, st.integers(2, 20))
def test_tiles_cover_the_image_once_within_the_bound(width: int, height: int, tiles: int) -> None:
    whole, *rest = resolution("tiles", tiles=tiles).frames(width, height)
    assert whole.window == (0, 0, 1, 1)
    assert len(rest) <= tiles
    if rest:
        windows = np.array([frame.window for frame in rest])
        areas = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        assert areas.sum() == pytest.approx(1)
        assert len({(w[0], w[1]) for w in windows.tolist()}) == len(rest)


# Prompts


MODES: list[dict[str, Any]] = [
    {},
    {"image_size": 60},
    {"image_size": 28},
    {"resolution": "native"},
    {"resolution": "native", "min_pixels": 784, "max_pixels": 3136},
    {"resolution": "tiles", "image_size": 56},
    {"resolution": "tiles", "max_tiles": 9},
]


@pytest.mark.parametrize("config", MODES)
def test_lengths_are_exact_and_pictures_are_left_as_they_are(
    config: dict[str, Any], images: list[Path], encoder: PromptEncoder
) -> None:
    mine = PromptEncoder(encoder.processor, PromptConfig(**{"image_size": 112, **config}))
    for chosen in (images[:1], images[1:2], images[2:5], images):
        record = example(*chosen)
        encoded, pictures = mine.encode(record), mine.images(record)
        assert len(encoded.input_ids) == mine.length(record)
        assert [p.size for p in pictures] == [(f.width, f.height) for f in mine.frames(record)]
        assert len(pictures) <= mine.max_images_per_prompt
        as_they_are = mine.processor.image_processor(pictures, do_resize=False, return_tensors="pt")
        assert torch.equal(encoded.pixel_values, as_they_are["pixel_values"])
        assert torch.equal(encoded.image_grid_thw, as_they_are["image_grid_thw"])


def test_the_cache_changes_nothing(images: list[Path], encoder: PromptEncoder, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", 2**30)
    for config in ({"image_size": 56}, {"image_size": 112}, {"resolution": "native"}, {"resolution": "tiles"}):
        settings = PromptConfig(**{"image_size": 112, **config})
        plain, cached = (PromptEncoder(encoder.processor, settings, c) for c in (None, cache))
        for _ in range(2):
            for one, other in zip(plain.images(example(*images)), cached.images(example(*images)), strict=True):
                assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"image_size": 448}, "prompt.image_size: expected 28 to 112"),
        ({"image_size": 448, "resolution": "tiles"}, "prompt.image_size: expected 28 to 112"),
        ({"resolution": "native", "max_pixels": 100_000}, "at most 12544"),
        ({"resolution": "native", "min_pixels": 100}, "at least 784"),
        ({"resolution": "native", "min_pixels": 8000}, "4 times"),
    ],
)
def test_sizes_that_the_processor_would_change_are_refused(
    config: dict[str, Any], said: str, encoder: PromptEncoder
) -> None:
    with pytest.raises(ConfigError, match=said):
        PromptEncoder(encoder.processor, PromptConfig(**config))


def test_what_cannot_be_shown_is_named(encoder: PromptEncoder, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2)).save(tmp_path / "thin.png")
    native = PromptEncoder(encoder.processor, PromptConfig(resolution="native"))
    for ask in (native.images, native.length, native.frames):
        with pytest.raises(DataError, match=r"thin\.png: .* found 3000 x 2 pixels"):
            ask(example(tmp_path / "thin.png"))
    with pytest.raises(DataError, match=r"record 'r': expected 1 placeholders <\|image_pad\|>, found 2"):
        encoder.text(example(tmp_path / "thin.png", question="What is <|image_pad|>?"))
