"""Features of a scene from the answers about its windows."""

from __future__ import annotations

from collections import Counter, defaultdict
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
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.class_names import spelling_of
from geovlm_ray.tasks.answers.grammar import parse_response

WITH_BOXES = ("boxes", "grounded")


def features_of(
    answers: Sequence[WindowAnswer], task: str, width: int, height: int, *, reasoning: bool = False
) -> list[Feature]:
    """Features of a scene of ``width`` x ``height`` pixels.

    Boxes become objects, each once; all other answers, and descriptions with boxes, become polygons of their windows.
    With ``reasoning``, the reasoning of a response is a column of its features.
    """
    kind = find_task(task).target_kind
    answered = [answer for answer in answers if answer.response is not None]
    features = []
    if kind in WITH_BOXES:
        detections = with_one_spelling([d for answer in answered for d in detections_of(answer)])
        thoughts = {answer.window: _split(answer.response)[0] for answer in answered}
        for found in merged(detections, width, height):
            columns: dict[str, Any] = {"label": found.label, "score": found.score, "agreement": found.agreement}
            if reasoning:
                columns["reasoning"] = thoughts[found.window]
            features.append(Feature(polygons([found.box])[0], columns))
    if kind != "boxes":
        features += [_window_feature(answer, reasoning) for answer in answered]
    return features


def with_one_spelling(detections: Sequence[Detection]) -> list[Detection]:
    """The detections, with the most frequent spelling of each label: windows may answer "ship", "Ship" and "ships"."""
    keys = {d.label: d.label and (spelling_of(d.label).key or d.label) for d in detections}
    counts: defaultdict[str | None, Counter[str | None]] = defaultdict(Counter)
    for detection in detections:
        counts[keys[detection.label]][detection.label] += 1
    chosen = {key: max(sorted(found.items(), key=str), key=lambda item: item[1])[0] for key, found in counts.items()}
    return [replace(d, label=chosen[keys[d.label]]) for d in detections]


def detections_of(answer: WindowAnswer) -> list[Detection]:
    """The boxes of a response, in pixels of the scene."""
    boxes = _boxes(answer.response or "", answer)
    samples = [_boxes(text, answer) for text in answer.samples]
    return [
        Detection(box.coords, box.label, answer.confidence, answer.window, _agreement(box, samples)) for box in boxes
    ]


def _boxes(response: str, answer: WindowAnswer) -> list[Box]:
    frame, window = frame_from_json(answer.frame), answer.window
    read = read_boxes(_split(response)[1], frame=frame)
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
    same = [[b.coords for b in boxes if b.label == box.label] for boxes in samples]
    return float(np.mean([bool(s) and iou_matrix([box.coords], s, rotated=True).max() >= SAME_IOU for s in same]))


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
