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
from geovlm_ray.report.boxes import CASING_COLOUR, PREDICTED_COLOUR, TRUE_COLOUR
from geovlm_ray.report.page import data_uri, render
from geovlm_ray.serving.predict.features import Feature, SceneFeatures
from geovlm_ray.serving.predict.outputs import quick_look_page, quick_look_pictures, save_picture
from geovlm_ray.serving.predict.pairs import align

SIDE = 2048
"""Longer side of the pictures in pixels."""
MAX_TEXT = 300
"""Characters of an answer on the page."""


def write_quick_look(
    sources: Sequence[Sequence[str]], composites: Sequence[Composite], scenes: Sequence[SceneFeatures], out: Path
) -> list[Path]:
    """Write ``OUT.png`` (``OUT-2.png``, ... for further scenes) and ``OUT.html``; returns the files."""
    files, cards = [], []
    pictures = quick_look_pictures(out, len(scenes))
    for paths, features, file in zip(sources, scenes, pictures, strict=True):
        # Of a change pair, the later scene.
        picture, shown = preview(paths[-1], composites, features, paths[0] if len(paths) > 1 else "")
        save_picture(drawn(picture, shown.features), file)
        files.append(file)
        cards.append(card(picture, shown))
    note = f"Predictions of {out.name}; features are drawn in orange, windows with an answer dashed."
    page = quick_look_page(out)
    write_atomically(page, render("map.html", title=out.stem, note=note, scenes=cards, tables=()))
    return [*files, page]


def preview(
    path: str, composites: Sequence[Composite], features: SceneFeatures, earlier: str = ""
) -> tuple[Image.Image, SceneFeatures]:
    """A reduced picture of a scene, on the pixel grid of an earlier one if given, and its features in its pixels."""
    with Scene(path) as scene:
        if earlier:
            with Scene(earlier) as first:
                align(scene, first)
        picture = Image.fromarray(Renderer(scene, (composites or [Composite.default(scene)])[0]).render(side=SIDE)[0])
    factors = [picture.width / features.width, picture.height / features.height]
    scaled = [
        Feature(shapely.transform(f.polygon, lambda points: points * factors), f.properties) for f in features.features
    ]
    return picture, replace(features, features=scaled)


def drawn(picture: Image.Image, features: Sequence[Feature]) -> Image.Image:
    """A copy of the picture with the outlines of features in its pixels; those with ``is_true`` are blue."""
    canvas = picture.copy()
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(max(picture.size) / 700))
    for feature in features:
        outline = list(map(tuple, shapely.get_coordinates(feature.polygon.exterior).tolist()))
        draw.line(outline, fill=CASING_COLOUR, width=width + 2, joint="curve")
    for feature in features:
        outline = list(map(tuple, shapely.get_coordinates(feature.polygon.exterior).tolist()))
        colour = TRUE_COLOUR if "is_true" in feature.properties else PREDICTED_COLOUR
        draw.line(outline, fill=colour, width=width, joint="curve")
    return canvas


def card(picture: Image.Image, features: SceneFeatures) -> dict[str, Any]:
    """What the page shows of a scene, whose features are in pixels of the picture."""
    scores = defaultdict(list)
    for feature in features.features:
        if "score" in feature.properties:
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
                "kind": next((kind for kind in ("answer", "is_true") if kind in feature.properties), ""),
            }
            for feature in features.features
        ],
    }


def _name(feature: Feature) -> str:
    if "answer" in feature.properties:
        return str(feature.properties["answer"])[:80]
    return str(feature.properties["label"] or "object")


def _text(feature: Feature) -> str:
    texts = {key: value for key, value in feature.properties.items() if value not in (None, "") and key != "is_true"}
    parts = (f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in texts.items())
    return ", ".join(part[:MAX_TEXT] for part in parts)
