"""Features of a scene from the answers about its windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from geovlm_ray.core.geometry import Frame, convert_coords, iou_matrix, polygons, rotated_box
from geovlm_ray.core.schema import Box
from geovlm_ray.data.geo.scene import Window
from geovlm_ray.data.records import frame_from_json
from geovlm_ray.serving.predict.answers import WindowAnswer
from geovlm_ray.serving.predict.features import Feature
from geovlm_ray.serving.predict.seams import SAME_IOU, Detection, merged
from geovlm_ray.tasks import find_task
from geovlm_ray.tasks.answers.box_labels import named_class
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.class_names import ClassNames, Synonyms, class_names, spelling_of, variants
from geovlm_ray.tasks.answers.grammar import parse_response

WITH_BOXES = ("boxes", "grounded")
SAME_CLASS = Synonyms(related=False)
"""Other names of a class, without names of related classes: a model may tell ships from boats."""


def features_of(
    answers: Sequence[WindowAnswer],
    task: str,
    width: int,
    height: int,
    classes: Sequence[str] = (),
    *,
    reasoning: bool = False,
) -> list[Feature]:
    """Features of a scene of ``width`` x ``height`` pixels; ``classes`` are the names that labels are known to be of.

    Boxes become objects, each once; all other answers, and descriptions with boxes, become polygons of their windows.
    With ``reasoning``, the reasoning of a response is a column of its features.
    """
    kind = find_task(task).target_kind
    answered = [answer for answer in answers if answer.response is not None]
    features = []
    if kind in WITH_BOXES:
        names = class_names(tuple(classes))
        detections = with_one_name([d for answer in answered for d in detections_of(answer, names)], names)
        thoughts = {answer.window: _split(answer.response)[0] for answer in answered}
        for found in merged(detections, width, height):
            columns: dict[str, Any] = {"label": found.label, "score": found.score, "agreement": found.agreement}
            if reasoning:
                columns["reasoning"] = thoughts[found.window]
            features.append(Feature(polygons([found.box])[0], columns))
    if kind != "boxes":
        features += [_window_feature(answer, reasoning) for answer in answered]
    return features


def with_one_name(detections: Sequence[Detection], names: ClassNames) -> list[Detection]:
    """The detections, with one name for each class: windows may answer "plane", "Planes" and "airplane".

    It is the one of ``names`` that a label means, else the most frequent of the labels with its meaning.
    """
    counts = Counter(d.label for d in detections if d.label)
    chosen: dict[str | None, str | None] = {None: None}
    known: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        keys = [spelling_of(label).key or label]
        keys += [other.key for forms in variants(label, SAME_CLASS) for other in forms]
        chosen[label] = named_class(label, names) or next((known[key] for key in keys if key in known), label)
        if chosen[label] == label:
            known |= dict.fromkeys(keys, label)
    return [replace(d, label=chosen[d.label or None]) for d in detections]


def detections_of(answer: WindowAnswer, names: ClassNames) -> list[Detection]:
    """The boxes of a response, in pixels of the scene; words beside a box are its label."""
    boxes = _boxes(answer.response or "", answer, names)
    samples = [_boxes(text, answer, names) for text in answer.samples]
    return [
        Detection(box.coords, box.label, answer.confidence, answer.window, _agreement(box, samples)) for box in boxes
    ]


def _boxes(response: str, answer: WindowAnswer, names: ClassNames) -> list[Box]:
    frame, window = frame_from_json(answer.frame), answer.window
    read = read_boxes(_split(response)[1], names=names, frame=frame)
    pixels = Frame("pixel", window.width, window.height)
    pairs = zip(read.boxes, read.labels, strict=True) if read else ()
    placed = [(convert_coords(c, frame, pixels), label) for c, label in pairs]
    # The smallest rectangle around a polygon; None for one without area.
    found = [(rotated_box(c) if len(c) > 5 else c, label) for c, label in placed]
    return [Box(_moved(c, window), label) for c, label in found if c and _is_inside(c, window)]


def _moved(coords: Sequence[float], window: Window) -> tuple[float, ...]:
    x1, y1, x2, y2, *angle = coords
    return x1 + window.left, y1 + window.top, x2 + window.left, y2 + window.top, *angle


def _is_inside(coords: Sequence[float], window: Window) -> bool:
    """Whether a box has an area and its centre is in the window, whose pixels it is in."""
    x1, y1, x2, y2 = coords[:4]
    return x1 < x2 and y1 < y2 and 0 <= (x1 + x2) / 2 <= window.width and 0 <= (y1 + y2) / 2 <= window.height


def _agreement(box: Box, samples: Sequence[Sequence[Box]]) -> float | None:
    """Share of further responses with a box of this label and an IoU of at least 0.5; None without any."""
    if not samples:
        return None
    same = [[b.coords for b in boxes if _is_one_label(b.label, box.label)] for boxes in samples]
    return float(np.mean([bool(s) and iou_matrix([box.coords], s, rotated=True).max() >= SAME_IOU for s in same]))


def _is_one_label(a: str | None, b: str | None) -> bool:
    return a is None or b is None or spelling_of(a).key == spelling_of(b).key


def _window_feature(answer: WindowAnswer, reasoning: bool) -> Feature:
    thought, text = _split(answer.response)
    plain = _plain(text)
    agreement = float(np.mean([_plain(_split(s)[1]) == plain for s in answer.samples])) if answer.samples else None
    columns = {"answer": text, "score": answer.confidence, "agreement": agreement}
    window = answer.window
    return Feature(
        shapely.box(window.left, window.top, window.right, window.bottom),
        columns | ({"reasoning": thought} if reasoning else {}),
    )


def _split(response: str | None) -> tuple[str | None, str]:
    """Reasoning and answer; a response without the tags is all answer."""
    text = response or ""
    parsed = parse_response(text) or parse_response(text, "none")
    return (parsed.think.strip() if parsed and parsed.think else None), (parsed.answer if parsed else text).strip()


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split()).rstrip(".")
