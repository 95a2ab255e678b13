"""Rendering of synthetic scenes in the style of a small satellite image: land covers, clutter, objects, sensor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SCENE_SIZE = 112
SCALE = 2
"""Supersampling factor."""

COVERS = ("water", "farmland", "forest", "urban", "bare ground")
BASE = {
    "water": (28, 62, 110),
    "farmland": (150, 158, 72),
    "forest": (34, 74, 36),
    "urban": (122, 118, 116),
    "bare ground": (192, 164, 122),
}
COLOURS = {
    "white": (240, 240, 236),
    "grey": (150, 152, 158),
    "red": (196, 52, 42),
    "blue": (52, 92, 200),
    "yellow": (228, 196, 48),
}
OBJECTS = ("ship", "plane", "storage tank", "vehicle", "building")
# Land cover under each kind of object, and the colours of the object.
GROUND = {
    "ship": "water",
    "plane": "bare ground",
    "storage tank": "bare ground",
    "vehicle": "urban",
    "building": "farmland",
}
PAINT = {
    "ship": ("grey", "red"),
    "plane": ("white", "blue"),
    "storage tank": ("white", "yellow"),
    "vehicle": ("red", "blue", "yellow"),
    "building": ("red", "grey"),
}
ROUGHNESS = {"water": 5.0, "farmland": 7.0, "forest": 7.0, "urban": 5.0, "bare ground": 10.0}
"""Amplitude of each land cover's texture, in 8-bit grey values."""
CLUTTER = {
    "water": ((168, 190, 206), (118, 150, 178)),
    "farmland": ((44, 84, 40), (58, 96, 46)),
    "forest": ((96, 128, 62), (120, 116, 84)),
    "urban": ((70, 104, 62), (176, 172, 168)),
    "bare ground": ((120, 98, 74), (92, 108, 66)),
}
"""Colours of small things of no interest: foam, bushes, clearings, trees in streets, rocks."""
MAX_CLUTTER = 14
Sensor = Literal["optical", "grey", "sar"]
LOOKS = 16
"""Looks of the SAR-like sensor: its speckle has a standard deviation of 1 / sqrt(LOOKS) of the signal."""


@dataclass(frozen=True)
class Thing:
    """One object: kind, colour name, box ``(x1, y1, x2, y2)`` in pixels, and whether it is destroyed."""

    kind: str
    paint: str
    box: tuple[int, int, int, int]
    destroyed: bool = False


@dataclass(frozen=True)
class DrawnScene:
    """Content of one image. A second land cover, if any, fills the half at ``side`` (left, right, top or bottom).

    The sensor shows colours (``optical``), grey values, or grey values with multiplicative speckle (``sar``).
    """

    covers: tuple[str, ...]
    things: tuple[Thing, ...] = ()
    side: str = "right"
    texture_seed: int = 0
    light_seed: int = 0
    sensor: Sensor = "optical"


def render(scene: DrawnScene) -> Image.Image:
    """Render a scene as an RGB image with a side of `SCENE_SIZE` pixels."""
    side = SCENE_SIZE * SCALE
    rng = np.random.default_rng(scene.texture_seed)
    canvas = _cover(scene.covers[0], rng, side)
    if len(scene.covers) > 1:
        canvas.paste(_cover(scene.covers[1], rng, side), mask=_half_mask(scene.side, rng, side))
    light = np.random.default_rng(scene.light_seed)
    sun = tuple(int(v) for v in light.choice((-1, 1), 2))
    for thing in scene.things:
        _draw_thing(canvas, thing, rng, sun)
    small = canvas.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BOX)
    return _expose(small, scene.sensor, light)


def _cover(name: str, rng: np.random.Generator, side: int) -> Image.Image:
    colour = np.asarray(BASE[name]) + rng.integers(-8, 9, 3)
    image = Image.new("RGB", (side, side), tuple(int(c) for c in colour))
    draw = ImageDraw.Draw(image)
    {"water": _waves, "farmland": _fields, "forest": _trees, "urban": _streets, "bare ground": _patches}[name](
        draw, rng, side, colour
    )
    for x, y in rng.integers(0, side, (int(rng.integers(MAX_CLUTTER)), 2)):
        r = int(rng.integers(2, 6))
        draw.ellipse([x - r + 1, y - r + 1, x + r + 1, y + r + 1], fill=_shade(colour, -22))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=CLUTTER[name][int(rng.integers(2))])
    rough = np.asarray(image, dtype=np.float32) + ROUGHNESS[name] * _texture(rng, side)[..., None]
    return Image.fromarray(rough.clip(0, 255).astype(np.uint8))


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth noise of two scales with a standard deviation of about 1, [side, side] fp32."""
    total = np.zeros((side, side), dtype=np.float32)
    for cells in (6, 24):
        noise = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    return total


def _shade(colour: np.ndarray, amount: float) -> tuple[int, ...]:
    return tuple(int(c) for c in np.clip(np.asarray(colour) + amount, 0, 255))


def _waves(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, colour: np.ndarray) -> None:
    for _ in range(26):
        x, y = rng.integers(0, side, 2)
        length = int(rng.integers(10, 34))
        draw.line([(x, y), (x + length, y + length // 6)], fill=_shade(colour, rng.uniform(5, 18)), width=2)


def _fields(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, colour: np.ndarray) -> None:
    palette = [(168, 170, 84), (124, 148, 62), (186, 172, 96), (104, 136, 58)]
    xs = [0, *sorted(rng.integers(side // 5, side * 4 // 5, 2)), side]
    ys = [0, *sorted(rng.integers(side // 5, side * 4 // 5, 2)), side]
    for x1, x2 in itertools.pairwise(xs):
        for y1, y2 in itertools.pairwise(ys):
            field = np.asarray(palette[rng.integers(len(palette))])
            draw.rectangle([x1, y1, x2, y2], fill=_shade(field, rng.uniform(-8, 8)), outline=(92, 100, 48))
            for offset in range(4, int(x2 - x1), 7):
                draw.line([(x1 + offset, y1 + 2), (x1 + offset, y2 - 2)], fill=_shade(field, -16), width=1)


def _trees(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, colour: np.ndarray) -> None:
    for x, y in rng.integers(-4, side + 4, (120, 2)):
        r = int(rng.integers(6, 13))
        draw.ellipse([x - r + 2, y - r + 2, x + r + 2, y + r + 2], fill=_shade(colour, -18))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=_shade(colour, rng.uniform(-4, 26)))


def _streets(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, colour: np.ndarray) -> None:
    step = int(rng.integers(40, 54))
    first = int(rng.integers(0, step))
    for x in range(first - step, side, step):
        for y in range(first - step, side, step):
            for dx in (6, step // 2 + 2):
                for dy in (6, step // 2 + 2):
                    w = step // 2 - 7
                    roof = _shade(np.asarray((148, 128, 118)), rng.uniform(-26, 26))
                    draw.rectangle([x + dx + 2, y + dy + 2, x + dx + w + 2, y + dy + w + 2], fill=(74, 72, 72))
                    draw.rectangle([x + dx, y + dy, x + dx + w, y + dy + w], fill=roof)
    for p in range(first, side, step):
        draw.rectangle([p - 2, 0, p + 3, side], fill=(88, 88, 92))
        draw.rectangle([0, p - 2, side, p + 3], fill=(88, 88, 92))


def _patches(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, colour: np.ndarray) -> None:
    for x, y in rng.integers(0, side, (22, 2)):
        r = int(rng.integers(10, 34))
        draw.ellipse([x - r, y - r // 2, x + r, y + r // 2], fill=_shade(colour, rng.uniform(-9, 9)))


def _half_mask(half: str, rng: np.random.Generator, side: int) -> Image.Image:
    """Mask of one half of the image, with an irregular edge."""
    edge = np.cumsum(rng.normal(0, 1.2, side)) + side // 2
    along, across = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    if half in ("left", "right"):
        along, across = across, along
    inside = (along < edge[across]) == (half in ("left", "top"))
    return Image.fromarray((inside * 255).astype(np.uint8))


def _draw_thing(canvas: Image.Image, thing: Thing, rng: np.random.Generator, sun: tuple[int, ...]) -> None:
    """Draw an object; ``sun`` is the direction of its shadow, (-1 or 1, -1 or 1)."""
    x1, y1, x2, y2 = (v * SCALE for v in thing.box)
    draw = ImageDraw.Draw(canvas, "RGBA")
    colour = np.asarray(COLOURS[thing.paint])
    if thing.destroyed:
        _ruin(draw, (x1, y1, x2, y2), rng)
        return
    draw_kind = _DRAW[thing.kind]
    dx, dy = (3 * SCALE * v for v in sun)
    draw_kind(draw, (x1 + dx, y1 + dy, x2 + dx, y2 + dy), ((0, 0, 0, 90),) * 3)
    draw_kind(draw, (x1, y1, x2 - 1, y2 - 1), tuple(_shade(colour, a) for a in (0, -46, 30)))


Corners = tuple[int, int, int, int]


def _ship(draw: ImageDraw.ImageDraw, box: Corners, paints: tuple) -> None:
    x1, y1, x2, y2 = box
    horizontal = x2 - x1 >= y2 - y1
    if horizontal:
        bow = (x2 - x1) // 4
        hull = [(x1, y1), (x2 - bow, y1), (x2, (y1 + y2) // 2), (x2 - bow, y2), (x1, y2)]
    else:
        bow = (y2 - y1) // 4
        hull = [(x1, y2), (x1, y1 + bow), ((x1 + x2) // 2, y1), (x2, y1 + bow), (x2, y2)]
    draw.polygon(hull, fill=paints[0])
    w, h = (x2 - x1) // 5, (y2 - y1) // 5
    bridge = [x1 + w, y1 + h, x1 + 2 * w + 2, y2 - h] if horizontal else [x1 + w, y2 - 2 * h, x2 - w, y2 - h]
    draw.rectangle(bridge, fill=paints[2])


def _plane(draw: ImageDraw.ImageDraw, box: Corners, paints: tuple) -> None:
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    cx = (x1 + x2) // 2
    draw.ellipse([cx - w // 10, y1, cx + w // 10, y2], fill=paints[0])
    front, back = y1 + h * 6 // 10, y1 + h * 7 // 10
    wings = [(cx, y1 + h // 4), (x1, front), (x1, back), (cx, y1 + h // 2), (x2, back), (x2, front)]
    draw.polygon(wings, fill=paints[0])
    draw.polygon([(cx, y2 - h // 4), (cx - w // 4, y2), (cx + w // 4, y2)], fill=paints[0])


def _tank(draw: ImageDraw.ImageDraw, box: Corners, paints: tuple) -> None:
    draw.ellipse(box, fill=paints[0], outline=paints[1], width=4)
    x1, y1, x2, y2 = box
    w, h = (x2 - x1) // 4, (y2 - y1) // 4
    draw.ellipse([x1 + w, y1 + h, x2 - w, y2 - h], outline=paints[1], width=2)


def _vehicle(draw: ImageDraw.ImageDraw, box: Corners, paints: tuple) -> None:
    x1, y1, x2, y2 = box
    draw.rounded_rectangle(box, radius=min(x2 - x1, y2 - y1) // 4, fill=paints[0])
    w, h = (x2 - x1) // 5, (y2 - y1) // 5
    draw.rectangle([x1 + w, y1 + h, x2 - w, y2 - h], fill=paints[2])
    glass = [x2 - 2 * w, y1 + h, x2 - w, y2 - h] if x2 - x1 >= y2 - y1 else [x1 + w, y1 + h, x2 - w, y1 + 2 * h]
    draw.rectangle(glass, fill=(30, 34, 40, 90 if len(paints[0]) == 4 else 255))


def _building(draw: ImageDraw.ImageDraw, box: Corners, paints: tuple) -> None:
    x1, y1, x2, y2 = box
    draw.rectangle(box, fill=paints[0])
    middle = (y1 + y2) // 2
    draw.rectangle([x1, middle, x2, y2], fill=paints[1])
    draw.line([(x1, middle), (x2, middle)], fill=paints[2], width=3)


_DRAW = {"ship": _ship, "plane": _plane, "storage tank": _tank, "vehicle": _vehicle, "building": _building}


def _ruin(draw: ImageDraw.ImageDraw, box: Corners, rng: np.random.Generator) -> None:
    x1, y1, x2, y2 = box
    draw.rectangle(box, fill=(84, 74, 66, 235))
    for _ in range(30):
        x, y = int(rng.integers(x1, x2 - 4)), int(rng.integers(y1, y2 - 4))
        tone = int(rng.integers(40, 190))
        draw.rectangle(
            [x, y, x + int(rng.integers(3, 9)), y + int(rng.integers(3, 9))], fill=(tone, tone - 8, tone - 14)
        )


def _expose(image: Image.Image, sensor: Sensor, rng: np.random.Generator) -> Image.Image:
    """Apply an illumination gradient, a slight blur, and the response and noise of the sensor."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.45)), dtype=np.float32)
    direction = rng.uniform(-0.10, 0.10, 2)
    ramp = np.linspace(-1, 1, SCENE_SIZE, dtype=np.float32)
    gain = rng.uniform(0.92, 1.08) + direction[0] * ramp[:, None] + direction[1] * ramp[None, :]
    pixels = pixels * gain[..., None]
    if sensor != "optical":
        pixels = np.repeat(pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32), 3, axis=2)
    if sensor == "sar":
        pixels *= rng.gamma(LOOKS, 1 / LOOKS, pixels.shape[:2])[..., None].astype(np.float32)
    noise = rng.normal(0, 5, pixels.shape[:2])[..., None]
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
