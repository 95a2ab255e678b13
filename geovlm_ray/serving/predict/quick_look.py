"""A quick look at predictions: each scene with its features as a PNG, and all of them as a page with zoom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image, ImageDraw

from geovlm_ray.core.files import write_atomically
from geovlm_ray.data.geo.composites import Composite, Renderer
from geovlm_ray.data.geo.scene import Scene
from geovlm_ray.report.boxes import CASING_COLOUR, PREDICTED_COLOUR
from geovlm_ray.report.page import data_uri, render
from geovlm_ray.serving.predict.features import Feature, SceneFeatures

SIDE = 2048
"""Longer side of the pictures in pixels."""
MAX_TEXT = 300
"""Characters of an answer on the page."""


def write_quick_look(
    sources: Sequence[Sequence[str]], composites: Sequence[Composite], scenes: Sequence[SceneFeatures], out: Path
) -> list[Path]:
    """Write ``OUT.png`` (``OUT-2.png``, ... for further scenes) and ``OUT.html``; returns the files."""
    files, cards = [], []
    for k, (paths, features) in enumerate(zip(sources, scenes, strict=True), 1):
        # Of a change pair, the later scene.
        with Scene(paths[-1]) as scene:
            picture = Image.fromarray(
                Renderer(scene, (composites or [Composite.default(scene)])[0]).render(side=SIDE)[0]
            )
        factor = picture.width / features.width
        shown = replace(
            features, features=[Feature(_scaled(f.polygon, factor), f.properties) for f in features.features]
        )
        file = out.with_name(f"{out.stem}{'' if k == 1 else f'-{k}'}.png")
        drawn(picture, [f.polygon for f in shown.features]).save(file, compress_level=1)
        files.append(file)
        cards.append(_card(picture, shown))
    note = f"Predictions of {out.name}; features are drawn in orange, windows with an answer dashed."
    page = out.with_suffix(".html")
    write_atomically(page, render("map.html", title=out.stem, note=note, scenes=cards))
    return [*files, page]


def drawn(picture: Image.Image, shapes: Sequence[shapely.Polygon]) -> Image.Image:
    """A copy of the picture with the outlines of polygons in its pixels."""
    canvas = picture.copy()
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(max(picture.size) / 700))
    outlines = [list(map(tuple, shapely.get_coordinates(shape.exterior).tolist())) for shape in shapes]
    for extra, colour in ((2, CASING_COLOUR), (0, PREDICTED_COLOUR)):
        for outline in outlines:
            draw.line(outline, fill=colour, width=width + extra, joint="curve")
    return canvas


def _scaled(polygon: shapely.Polygon, factor: float) -> shapely.Polygon:
    return shapely.transform(polygon, lambda points: points * factor)


def _card(picture: Image.Image, features: SceneFeatures) -> dict[str, Any]:
    scores = defaultdict(list)
    for feature in features.features:
        scores[_name(feature)].append(feature.properties["score"])
    counts = Counter({name: len(values) for name, values in scores.items()})
    place = (
        f"in {features.georeference.crs.to_string()}" if features.georeference else "without a georeference, in pixels"
    )
    return {
        "name": features.name,
        "description": f"{features.width:,} x {features.height:,} pixels, {place}; {len(features.features):,} features",
        "counts": [(name, f"{n:,}", f"{np.mean(scores[name]):.2f}") for name, n in counts.most_common(30)],
        "width": picture.width,
        "height": picture.height,
        "picture": data_uri(picture),
        "alt": f"{features.name} with {len(features.features)} features",
        "shapes": [
            {
                "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in shapely.get_coordinates(feature.polygon.exterior)),
                "text": _text(feature),
                "is_answer": "answer" in feature.properties,
            }
            for feature in features.features
        ],
    }


def _name(feature: Feature) -> str:
    if "answer" in feature.properties:
        return str(feature.properties["answer"])[:80]
    return str(feature.properties["label"] or "object")


def _text(feature: Feature) -> str:
    texts = {key: value for key, value in feature.properties.items() if value not in (None, "")}
    parts = (f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in texts.items())
    return ", ".join(part[:MAX_TEXT] for part in parts)
