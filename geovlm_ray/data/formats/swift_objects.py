"""ms-swift's ``objects``: names and boxes for the placeholders ``<ref-object>`` and ``<bbox>`` of a conversation.

Source: modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md, "Grounding".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import field_of, short_repr
from geovlm_ray.data.formats.references import box_of

UNITS = {"real": "pixel", "norm1": "fraction", "norm1000": "permille"}
"""Unit of boxes by ``bbox_type``."""
KNOWN_KEYS = ("ref", "bbox", "bbox_type", "image_id")
_PLACEHOLDERS = re.compile(r"<ref-object>\s*<bbox>|<ref-object>|<bbox>")


def stated_unit(objects: Any) -> str | None:
    """The unit that ``bbox_type`` states; None if it is absent.

    Raises:
        DataError: it is not a known type.
    """
    kind = objects.get("bbox_type") if isinstance(objects, Mapping) else None
    if kind is not None and kind not in UNITS:
        raise DataError(f"objects.bbox_type: expected {' or '.join(UNITS)}, found {short_repr(kind)}")
    return UNITS[kind] if kind is not None else None


def check_image(objects: Any, images: int) -> None:
    """Check that boxes refer to the last of ``images`` images, as they do without ``image_id``.

    Raises:
        DataError: a box refers to another image.
    """
    for index in _list(objects, "image_id"):
        if index != images - 1:
            raise DataError(
                f"objects.image_id: expected boxes on the last image, {images - 1}, found one on image {index!r:.20}"
            )


def fill_placeholders(turns: Any, objects: Any) -> list[dict[str, str]]:
    """The turns with their placeholders replaced in order; a name directly before its box becomes its label.

    Raises:
        DataError: there are more or fewer placeholders than names or boxes, or a box is not one.
    """
    if not isinstance(turns, list):
        raise DataError(f"messages: expected a list of turns beside objects, found {short_repr(turns)}")
    names = iter(_list(objects, "ref"))
    boxes = iter(_list(objects, "bbox"))

    def fill(match: re.Match[str]) -> str:
        name = str(_next(names, "ref")) if "<ref-object>" in match[0] else None
        if "<bbox>" not in match[0]:
            return str(name)
        box = json.dumps([round(v, 4) for v in box_of(_next(boxes, "bbox")).coords])
        return box if name is None else f"<ref>{name}</ref><box>[{box}]</box>"

    filled = [turn | {"value": _PLACEHOLDERS.sub(fill, turn["value"])} for turn in turns]
    for key, rest in (("ref", names), ("bbox", boxes)):
        if left := len(list(rest)):
            raise DataError(f"objects.{key}: expected one placeholder for each, found {left} without")
    return filled


def _list(objects: Any, key: str) -> list[Any]:
    if not isinstance(objects, dict):
        raise DataError(f"objects: expected an object with ref and bbox, found {short_repr(objects)}")
    return [] if objects.get(key) is None else list(field_of(objects, key, list))


def _next(items: Iterator[Any], key: str) -> Any:
    try:
        return next(items)
    except StopIteration:
        raise DataError(f"objects.{key}: expected one for each placeholder, found fewer") from None
