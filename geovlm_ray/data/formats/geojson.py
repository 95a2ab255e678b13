"""Maps: raster scenes with vector layers (GeoJSON, GeoPackage, FlatGeobuf, Shapefile) become windows with boxes.

A layer of the name of a scene belongs to this scene; every other layer belongs to all scenes with a georeference.
Windows are cut as by ``geovlm-ray predict``, so that a model is trained on what it will see. Splits are by area
(`geovlm_ray.data.geo.areas`): no place is in two of them, also if several scenes show it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import shapely
from PIL import Image

from geovlm_ray.core.geometry import Frame, intersections
from geovlm_ray.core.schema import Box, Example, Target
from geovlm_ray.data.formats.base import Format, Settled, Source, Unit
from geovlm_ray.data.formats.files import question_for
from geovlm_ray.data.formats.geojson_windows import (
    OPTIONS,
    TASKS,
    PlannedWindow,
    WindowSettings,
    layer_files,
    plan_windows,
    raster_files,
)
from geovlm_ray.data.formats.objects import QUESTION
from geovlm_ray.data.formats.quads import smallest_rotated_box
from geovlm_ray.data.formats.streams import external_link, relative
from geovlm_ray.data.geo.composites import Composite, Renderer
from geovlm_ray.data.geo.scene import Scene, Window
from geovlm_ray.data.table import UNCLEAR, Row

COVERS = 0.05
"""Share of a window from which a class is present, however little of the object is in the window."""


def units(source: Source) -> Iterator[Unit]:
    """A problem for each feature without polygon or class, and each window."""
    settings = WindowSettings.of(source)
    for path in layer_files(source):
        if (link := external_link(path, source)) is not None:
            yield link
            continue
        for number, problem in settings.read(path).problems.items():
            yield Unit(relative(path, source), number, problem=problem)
    planned, _ = plan_windows(source, settings)
    for number, window in enumerate(planned, 1):
        yield Unit(window.scene, number, window)


def settle(source: Source) -> Settled:
    """Windows by split."""
    planned, crossing = plan_windows(source, WindowSettings.of(source))
    counts = Counter(window.split for window in planned)
    found = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    left = f"; {crossing:,} windows on the border of areas of different splits are left out" if crossing else ""
    used = {window.scene for window in planned}
    unused = [name for path in raster_files(source) if (name := path.relative_to(source.images).as_posix()) not in used]
    without = f"scenes: {len(unused):,} rasters without a layer are left out, the first {unused[0]!r}" if unused else ""
    return Settled(notes=tuple(filter(None, (f"windows: {found}{left}", without))))


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The records of a window: none without data; without objects, the window for negatives if these are wanted."""
    planned: PlannedWindow = unit.value
    settings = WindowSettings.of(source)
    opened = _opened(str(source.images / planned.scene), planned.layers, settings)
    objects = _visible_objects(opened, planned.window, settings)
    has_objects = any(o.is_shown or o.covers >= COVERS for o in objects)
    if not has_objects and not source.with_empty:
        return
    pictures = [renderer.render(planned.window) for renderer in opened.renderers]
    if not all(has_data for _, has_data in pictures):
        return
    window = planned.window
    stem = PurePosixPath(planned.scene).with_suffix("").as_posix()
    name = f"{stem}/{window.left},{window.top}"
    images = tuple(f"images/{name}{f'-{i}' if i else ''}.png" for i in range(len(pictures)))
    common = Example(
        id=name,
        task="",
        images=images,
        question="",
        target=(),
        dataset=source.folder.resolve().name,
        split=planned.split,
        frame=Frame("pixel", window.width, window.height),
        gsd=opened.gsd,
    )
    files = {image: _png(picture) for image, (picture, _) in zip(images, pictures, strict=True)}
    cut = sorted({o.label for o in objects if not o.is_shown})
    extra = {UNCLEAR: cut} if cut else {}
    if not has_objects:
        yield Row(replace(common, task="referred_object_detection"), files=files, extra=extra, is_empty=True)
        return
    for task in settings.tasks:
        for example, parts in _RECORDS[task](common, objects, opened, source):
            yield Row(example, files=files, parts=parts, extra=extra)


@dataclass(frozen=True)
class _Object:
    """What a window shows of an object: the box in its pixels, and the share of the object that is in the window.

    ``covers`` is the share of the window within the object.
    """

    label: str
    box: tuple[float, ...]
    is_shown: bool
    covers: float


@dataclass(frozen=True)
class _Opened:
    """An open scene, the renderers of its pictures, and its objects with an index."""

    scene: Scene
    renderers: tuple[Renderer, ...]
    shapes: np.ndarray
    labels: tuple[str, ...]
    tree: shapely.STRtree
    gsd: float | None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The classes of the scene's layers."""
        return tuple(sorted(set(self.labels)))


@lru_cache(maxsize=2)
def _opened(path: str, layers: tuple[str, ...], settings: WindowSettings) -> _Opened:
    scene = Scene(path)
    read = [settings.read(Path(layer)) for layer in layers]
    shapes = np.concatenate([layer.in_pixels(scene) for layer in read])
    labels = tuple(label for layer in read for label in layer.labels)
    composites = settings.composites or (Composite.default(scene),)
    renderers = tuple(Renderer(scene, c, settings.percentiles, settings.value_range) for c in composites)
    where = scene.georeference
    gsd = where.metres_per_pixel(scene.width, scene.height) if where else None
    return _Opened(scene, renderers, shapes, labels, shapely.STRtree(shapes), gsd)


def _visible_objects(opened: _Opened, window: Window, settings: WindowSettings) -> list[_Object]:
    outline = shapely.box(window.left, window.top, window.right, window.bottom)
    found = []
    for i in sorted(opened.tree.query(outline, predicate="intersects").tolist()):
        shape = opened.shapes[i]
        (part,) = intersections(np.array([shape]), np.array([outline]))
        if part.area == 0:
            continue
        moved = shapely.transform(part, lambda xy: xy - [window.left, window.top])
        box = smallest_rotated_box(shapely.get_coordinates(moved).ravel()) if settings.rotated else moved.bounds
        is_shown = part.area >= settings.visible * shape.area
        found.append(_Object(opened.labels[i], tuple(map(float, box)), is_shown, part.area / outline.area))
    return found


Records = Iterator[tuple[Example, int]]


def _by_class(objects: Iterable[_Object], *, whole: bool) -> dict[str, list[_Object]]:
    """The objects that are shown by class; ``whole``: without classes of which a smaller part of an object is shown."""
    cut = {o.label for o in objects if not o.is_shown} if whole else set()
    by_class: dict[str, list[_Object]] = {}
    for o in objects:
        if o.is_shown and o.label not in cut:
            by_class.setdefault(o.label, []).append(o)
    return by_class


def _record(common: Example, kind: str, task: str, question: str, target: Target) -> Example:
    return replace(common, id=f"{common.id}/{kind}", task=task, question=question, target=target)


def _detection(common: Example, objects: list[_Object], opened: _Opened, source: Source) -> Records:
    for name, members in _by_class(objects, whole=False).items():
        boxes = tuple(Box(o.box, name) for o in members)
        question = question_for(source, QUESTION, name)
        yield _record(common, f"detection/{name}", "referred_object_detection", question, boxes), len(members)


def _grounding(common: Example, objects: list[_Object], opened: _Opened, source: Source) -> Records:
    for name, members in _by_class(objects, whole=True).items():
        if len(members) == 1:
            question = f"Where is the {_words(name)}?"
            yield _record(common, f"grounding/{name}", "visual_grounding", question, (Box(members[0].box),)), 1


def _counting(common: Example, objects: list[_Object], opened: _Opened, source: Source) -> Records:
    for name, members in _by_class(objects, whole=True).items():
        question = f"How many objects of the class {_words(name)} does the image show?"
        yield _record(common, f"counting/{name}", "vqa", question, str(len(members))), len(members)


def _classification(common: Example, objects: list[_Object], opened: _Opened, source: Source) -> Records:
    present = tuple(sorted({o.label for o in objects if o.is_shown or o.covers >= COVERS}))
    vocabulary = opened.vocabulary
    question = f"Which of these classes does the image show: {'; '.join(vocabulary)}?"
    example = _record(common, "classes", "multilabel_classification", question, present)
    yield replace(example, labels=vocabulary), len(present)


_RECORDS = dict(zip(TASKS, (_detection, _grounding, _counting, _classification), strict=True))


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


GEOJSON = Format(
    "maps: scenes with GeoJSON, GeoPackage, FlatGeobuf or Shapefile polygons; windows for tasks=detection,grounding,"
    "counting,classification, splits=80,10,10 by area",
    units,
    convert,
    options=OPTIONS,
    settle=settle,
    stores_images=lambda source: True,
)
