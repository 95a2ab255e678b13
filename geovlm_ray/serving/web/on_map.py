"""Boxes of an answer on the map: GeoJSON for images with a georeference."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame, convert_coords, polygons
from geovlm_ray.data.geo.scene import Scene
from geovlm_ray.serving.answering import Answer
from geovlm_ray.serving.predict.features import Feature, SceneFeatures, write_features


def geojson_of(image: Path, name: str, answer: Answer) -> str | None:
    """The boxes of an answer as GeoJSON (RFC 7946); None without boxes, or if the image has no georeference.

    ``name`` is that of the image in the column ``scene``.
    """
    if not answer.boxes:
        return None
    with suppress(DataError), Scene(str(image)) as scene:
        if scene.georeference is None:
            return None
        pixels = Frame("pixel", scene.width, scene.height)
        shapes = polygons([convert_coords(box.coords, answer.frame, pixels) for box in answer.boxes])
        columns = [{"label": box.label} for box in answer.boxes]
        features = [Feature(shape, values) for shape, values in zip(shapes, columns, strict=True)]
        out = image.with_suffix(".geojson")
        write_features([SceneFeatures(name, scene.width, scene.height, scene.georeference, features)], out)
        return out.read_text(encoding="utf-8")
    return None
