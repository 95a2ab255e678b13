"""Resolution modes: image sizes, tiles, box coordinates, and prompts that the processor does not resize again."""

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


def resolution(
    mode: Mode, side: int = 448, min_pixels: int = 3136, max_pixels: int = 1_003_520, tiles: int = 6
) -> Resolution:
    """A resolution whose image sides are multiples of 28."""
    return Resolution(mode, side, 28, min_pixels, max_pixels, tiles)


def example(*images: Path, question: str = "Is there a ship?") -> Example:
    """A VQA record with images."""
    return Example(id="r", task="vqa", images=tuple(map(str, images)), question=question, target="yes")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Noise images of many shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for k, (width, height) in enumerate([(50, 50), (301, 199), (1, 1), (7, 900), (1000, 31), (113, 112), (640, 642)]):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(paths[-1])
    return paths


# Boxes and frames


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame whose window spans at least 5% of each side of the image."""
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    right, bottom = draw(st.floats(left + 0.05, 1)), draw(st.floats(top + 0.05, 1))
    return Frame(
        draw(st.sampled_from(["percent", "permille", "pixel"])), draw(side), draw(side), (left, top, right, bottom)
    )


@given(frames(), frames(), st.tuples(*[st.floats(-50, 150)] * 4), st.floats(-180, 180))
def test_frame_conversion_is_invertible(one: Frame, other: Frame, box: tuple[float, ...], angle: float) -> None:
    converted = one.convert((*box, angle), other)
    assert converted[4] == angle
    assert other.convert(converted, one) == pytest.approx((*box, angle), abs=1e-6)


def test_window_frames_map_to_their_part_of_the_image() -> None:
    tile = Frame("pixel", 448, 448, (0.5, 0.0, 1.0, 0.25))
    assert PERCENT.convert((50, 0, 100, 25), tile) == pytest.approx((0, 0, 448, 448))
    assert PERCENT.convert((75, 12.5, 200, 25, 30), tile) == pytest.approx((224, 224, 1344, 448, 30))
    assert tile.convert((0, 0, 224, 224), Frame("pixel", 4000, 2000)) == pytest.approx((2000, 0, 3000, 250))
    assert Frame("pixel", 4, 2) == Frame(kind="pixel", width=4, height=2)
    for window in ((0, 0, 0, 1), (0.5, 0, 0.2, 1)):
        with pytest.raises(ValueError, match="window"):
            Frame("percent", window=window)


IMAGE_NAMES = ["rgb.png", "radar.tif", "sixteen.tif", "turned.jpg", "large.jpg"]


def write_box_image(path: Path, box: tuple[int, int, int, int], width: int, height: int) -> None:
    """Write a dark image with one bright box, given in pixels of the upright image."""
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


@pytest.mark.parametrize("name", IMAGE_NAMES)
@pytest.mark.parametrize("mode", ["fixed", "native", "tiles"])
def test_converted_boxes_match_the_pixels_of_every_view(mode: Mode, name: str, tmp_path: Path) -> None:
    width, height = (4003, 2999) if name == "large.jpg" else (1117, 733)
    box = tuple(round(v * n) for v, n in zip((0.31, 0.22, 0.71, 0.58), (width, height) * 2, strict=True))
    write_box_image(tmp_path / name, box, width, height)
    settings = resolution(mode, max_pixels=600 * 400)
    views, view_frames = show(str(tmp_path / name), DEFAULT, settings), frames_of(str(tmp_path / name), settings)
    assert len(views) == len(view_frames) == (1 if mode != "tiles" else 1 + math.prod(settings.grid(width, height)))
    percent = Frame("pixel", width, height).convert(box, PERCENT)
    for view, frame in zip(views, view_frames, strict=True):
        assert view.shape == (frame.height, frame.width, 3)
        x1, y1, x2, y2 = PERCENT.convert(percent, frame)
        expected = (max(x1, 0), max(y1, 0), min(x2, frame.width), min(y2, frame.height))
        bright = np.argwhere(view[..., 0] > 128)
        if expected[0] >= expected[2] or expected[1] >= expected[3]:
            assert not len(bright)
            continue
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        assert (left, top, right, bottom) == pytest.approx(expected, abs=1.5)


# Sizes


@given(side, side, st.integers(4, 4000), st.integers(4, 5000))
def test_native_size_equals_smart_resize_and_is_stable(width: int, height: int, min_patches: int, ratio: int) -> None:
    min_pixels, max_pixels = min_patches * 784, min_patches * 784 * ratio
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(DataError, match="aspect ratio of at most 200"):
            resolution("native", min_pixels=min_pixels, max_pixels=max_pixels).native_size(width, height)
        return
    size = resolution("native", min_pixels=min_pixels, max_pixels=max_pixels).native_size(width, height)
    smart_size = smart_resize(height, width, 28, min_pixels, max_pixels)[::-1]
    resized_again = smart_resize(size[1], size[0], 28, min_pixels, max_pixels)[::-1]
    assert resized_again == size
    if smart_resize(smart_size[1], smart_size[0], 28, min_pixels, max_pixels)[::-1] == smart_size:
        assert size == smart_size


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
def test_tile_grid_follows_the_aspect_ratio(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert resolution("tiles").grid(*size) == grid


@given(side, side, st.integers(2, 20))
def test_tiles_cover_the_image_once_within_max_tiles(width: int, height: int, tiles: int) -> None:
    overview, *tile_frames = resolution("tiles", tiles=tiles).frames(width, height)
    assert overview.window == (0, 0, 1, 1)
    assert len(tile_frames) <= tiles
    if tile_frames:
        windows = np.array([frame.window for frame in tile_frames])
        areas = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        assert areas.sum() == pytest.approx(1)
        assert len({(w[0], w[1]) for w in windows.tolist()}) == len(tile_frames)


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
def test_prompt_lengths_are_exact_and_the_processor_does_not_resize(
    config: dict[str, Any], images: list[Path], encoder: PromptEncoder
) -> None:
    prompt_encoder = PromptEncoder(encoder.processor, PromptConfig(**{"image_size": 112, **config}))
    for chosen in (images[:1], images[1:2], images[2:5], images):
        record = example(*chosen)
        encoded, views = prompt_encoder.encode(record), prompt_encoder.images(record)
        assert len(encoded.input_ids) == prompt_encoder.length(record)
        assert [p.size for p in views] == [(f.width, f.height) for f in prompt_encoder.frames(record)]
        assert len(views) <= prompt_encoder.max_images_per_prompt
        expected = prompt_encoder.processor.image_processor(views, do_resize=False, return_tensors="pt")
        assert torch.equal(encoded.images.pixel_values, expected["pixel_values"])
        assert torch.equal(encoded.images.grid_thw, expected["image_grid_thw"])


def test_cached_images_equal_uncached_images(images: list[Path], encoder: PromptEncoder, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", 2**30)
    for config in ({"image_size": 56}, {"image_size": 112}, {"resolution": "native"}, {"resolution": "tiles"}):
        settings = PromptConfig(**{"image_size": 112, **config})
        plain, cached = (PromptEncoder(encoder.processor, settings, c) for c in (None, cache))
        for _ in range(2):
            for expected, view in zip(plain.images(example(*images)), cached.images(example(*images)), strict=True):
                assert np.array_equal(np.asarray(expected), np.asarray(view))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": 448}, "prompt.image_size: expected 28 to 112"),
        ({"image_size": 448, "resolution": "tiles"}, "prompt.image_size: expected 28 to 112"),
        ({"resolution": "native", "max_pixels": 100_000}, "at most 12544"),
        ({"resolution": "native", "min_pixels": 100}, "at least 784"),
        ({"resolution": "native", "min_pixels": 8000}, "4 times"),
    ],
)
def test_sizes_outside_the_processor_limits_are_rejected(
    config: dict[str, Any], message: str, encoder: PromptEncoder
) -> None:
    with pytest.raises(ConfigError, match=message):
        PromptEncoder(encoder.processor, PromptConfig(**config))


def test_unusable_images_and_placeholders_are_reported(encoder: PromptEncoder, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2)).save(tmp_path / "thin.png")
    native = PromptEncoder(encoder.processor, PromptConfig(resolution="native"))
    for call in (native.images, native.length, native.frames):
        with pytest.raises(DataError, match=r"thin\.png: .* found 3000 x 2 pixels"):
            call(example(tmp_path / "thin.png"))
    with pytest.raises(DataError, match=r"record 'r': expected 1 placeholders <\|image_pad\|>, found 2"):
        encoder.text(example(tmp_path / "thin.png", question="What is <|image_pad|>?"))
