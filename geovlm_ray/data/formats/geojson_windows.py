"""Windows of scenes with vector layers: options, which layers belong to which scene, and splits by area."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.pixels import PERCENTILES
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.files import IMAGE_ENDINGS, choice_option, int_option, question_for, split_of_folder
from geovlm_ray.data.formats.objects import QUESTION
from geovlm_ray.data.formats.streams import external_link, source_files
from geovlm_ray.data.geo.areas import Cell, split_of_cells, touched_cells
from geovlm_ray.data.geo.composites import Composite
from geovlm_ray.data.geo.layers import ENDINGS, Layer, read_layer
from geovlm_ray.data.geo.scene import Scene, Window
from geovlm_ray.data.geo.windows import covering_windows

TASKS = ("detection", "grounding", "counting", "classification")
SPLITS = ("train", "validation", "test")
BLOCK = 4
"""Side of the areas of one split, in windows of the coarsest scene."""
OPTIONS = {
    "tasks": TASKS[0],
    "class": "auto",
    "label": "",
    "layer": "",
    "size": "448",
    "overlap": "0",
    "bands": "auto",
    "range": "auto",
    "percentiles": "{:g},{:g}".format(*PERCENTILES),
    "boxes": "horizontal",
    "visible": "0.5",
    "splits": "80,10,10",
    "question": QUESTION,
}


@dataclass(frozen=True)
class WindowSettings:
    """The options of a source, read."""

    tasks: tuple[str, ...]
    class_column: str
    label: str
    layer: str
    size: int
    overlap: int
    composites: tuple[Composite, ...]
    value_range: tuple[float, float] | None
    percentiles: tuple[float, float]
    rotated: bool
    visible: float
    shares: tuple[float, ...]

    @classmethod
    def of(cls, source: Source) -> WindowSettings:
        """Read the options.

        Raises:
            DataError: one of them is invalid.
        """
        question_for(source, QUESTION, "")
        options = {**OPTIONS, **source.options}
        tasks = tuple(options["tasks"].split(","))
        if not set(tasks) <= set(TASKS):
            raise DataError(f"option tasks: expected names of {', '.join(TASKS)}, found {options['tasks']!r}")
        shares = _numbers("splits", options["splits"], 3)
        if min(shares) < 0 or abs(sum(shares) - 100) > 1e-6:
            raise DataError(f"option splits: expected percents that sum to 100, found {options['splits']!r}")
        size, overlap = int_option(source, "size", 448), _numbers("overlap", options["overlap"], 1)[0]
        visible = _numbers("visible", options["visible"], 1)[0]
        if not 0 <= overlap < size or not 0 < visible <= 1:
            raise DataError(
                f"options overlap and visible: expected 0 to below {size} and above 0 to 1, found {overlap:g} and "
                f"{visible:g}"
            )
        try:
            bands = () if options["bands"] == "auto" else tuple(map(Composite.parse, options["bands"].split(";")))
        except ConfigError as error:
            raise DataError(f"option {str(error).removeprefix('--')}") from error
        return cls(
            tasks,
            "" if options["class"] == "auto" else options["class"],
            options["label"],
            options["layer"],
            size,
            int(overlap),
            bands,
            None if options["range"] == "auto" else _limits("range", options["range"]),
            _limits("percentiles", options["percentiles"]),
            choice_option(source, "boxes", ("horizontal", "rotated")) == "rotated",
            visible,
            tuple(share / 100 for share in shares),
        )

    def read(self, path: Path) -> Layer:
        """Read a layer."""
        return read_layer(path, self.class_column, self.label, self.layer)


def _numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    words = text.split(",")
    if len(words) != count or not all(re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", word.strip()) for word in words):
        raise DataError(f"option {name}: expected {count} number{'s' if count > 1 else ''}, found {text!r:.100}")
    return tuple(map(float, words))


def _limits(name: str, text: str) -> tuple[float, float]:
    low, high = _numbers(name, text, 2)
    if not low < high:
        raise DataError(f"option {name}: expected LOW,HIGH with LOW < HIGH, found {text!r}")
    return low, high


@dataclass(frozen=True)
class PlannedWindow:
    """A window of a scene and its split; ``layers`` are the files of the scene's layers."""

    scene: str
    window: Window
    split: str
    layers: tuple[str, ...]


def layer_files(source: Source) -> list[Path]:
    """The vector files of a source."""
    return source_files(source, ENDINGS)


def raster_files(source: Source) -> list[Path]:
    """The rasters below the image root, in order."""
    return sorted(p for p in source.images.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def plan_windows(source: Source, settings: WindowSettings) -> tuple[list[PlannedWindow], int]:
    """The windows of all scenes that have layers, and the number of those between areas of different splits.

    Raises:
        DataError: there is no scene with a layer.
    """
    layers_of = _scenes_with_layers(source)
    sizes = []
    for scene_file in layers_of:
        with Scene(str(scene_file)) as scene:
            where = scene.georeference
            sizes.append(where.metres_per_pixel(scene.width, scene.height) if where else 0.0)
    side = BLOCK * settings.size * max(sizes)
    found: list[tuple[PlannedWindow, frozenset[Cell]]] = []
    for scene_file, layers in layers_of.items():
        name = scene_file.relative_to(source.images).as_posix()
        split = split_of_folder(scene_file.parent, replace(source, path=source.images), default="")
        with Scene(str(scene_file)) as scene:
            windows = list(covering_windows(scene.width, scene.height, settings.size, settings.overlap))
            cells = touched_cells(scene, name, windows, side if scene.georeference else BLOCK * settings.size)
        names = tuple(map(str, layers))
        found += [(PlannedWindow(name, w, split, names), c) for w, c in zip(windows, cells, strict=True)]
    fixed = {cell: planned.split for planned, touched in found if planned.split for cell in touched}
    free = {cell for _, touched in found for cell in touched} - fixed.keys()
    splits = split_of_cells(free, dict(zip(SPLITS, settings.shares, strict=True))) | fixed
    chosen = []
    for planned, touched in found:
        possible = {planned.split} if planned.split else {splits[cell] for cell in touched}
        if len(possible) == 1:
            chosen.append(replace(planned, split=possible.pop()))
    return chosen, len(found) - len(chosen)


def _is_placed(raster: Path) -> bool:
    with Scene(str(raster)) as scene:
        return scene.georeference is not None


def _scenes_with_layers(source: Source) -> dict[Path, list[Path]]:
    """The files of the scenes below the image root, each with its layers."""
    rasters = raster_files(source)
    layers = [path for path in layer_files(source) if external_link(path, source) is None]
    if len(rasters) == len(layers) == 1:
        return {rasters[0]: layers}
    placed = {raster: _is_placed(raster) for raster in rasters}
    # The picture that `geovlm-ray predict` writes beside a map and a page is no scene.
    rasters = [path for path in rasters if placed[path] or not path.with_suffix(".html").is_file()]
    stems = {path.stem for path in rasters}
    taken = {path for path in layers for raster in rasters if path.with_suffix("") == raster.with_suffix("")}
    found = {}
    for raster in rasters:
        beside = [path for path in layers if path.with_suffix("") == raster.with_suffix("")]
        named = beside or [path for path in layers if path.stem == raster.stem and path not in taken]
        own = [path for path in layers if path in named or (placed[raster] and path.stem not in stems)]
        if own:
            found[raster] = own
    if not found:
        raise DataError(
            f"{source.path}: expected a scene ({', '.join(IMAGE_ENDINGS[:5])}, ...) of the name of a layer, or with a "
            f"georeference, below {source.images}, found {len(rasters)} rasters and {len(layers)} layers"
        )
    return found
