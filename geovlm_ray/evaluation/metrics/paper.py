"""The ``paper`` set on geovlm_ray records: EarthDial's metric definitions, without its file formats.

Boxes are parsed in the record's dialect (four numbers imply angle 0), so the quirks of EarthDial's box parser do not
apply. Class names are joined with commas. A region with several references uses the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geovlm_ray.core.geometry import Coords
from geovlm_ray.core.schema import target_boxes, target_texts
from geovlm_ray.evaluation.metrics import earthdial
from geovlm_ray.evaluation.metrics.earthdial_boxes import BoxPairs, count_hits, pooled_precision
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer, parse_boxes


def paper_metrics(records: Sequence[AnsweredExample]) -> dict[str, float]:
    """The ``paper`` metrics of at least one record, all of the same task."""
    task = records[0].example.task
    kind = TASKS[task].target_kind
    answers = [record.answer for record in records]
    references = [target_texts(record.example.target) for record in records]
    if kind == "classes":
        return earthdial.classification(answers, list(map(", ".join, references)))
    if kind == "vqa":
        return _questions(records)
    if kind == "boxes":
        boxes = _boxes(records)
        counts = {f"Precision @{threshold:g}": count_hits(boxes, threshold) for threshold in (0.5, 0.25)}
        sizes = [record.group or "" for record in records] if any(record.group for record in records) else None
        return {name: pooled_precision(n) for name, n in counts.items()} | earthdial.detection(boxes, sizes)
    if kind == "grounded":
        return _grounded(records)
    if task == "region_captioning":
        return earthdial.region_captions(answers, [texts[0] for texts in references])
    return earthdial.captions(answers, references)


def _questions(records: Sequence[AnsweredExample]) -> dict[str, float]:
    """Accuracy and, for datasets with RSVQA's question types, accuracy by type and their average without counting."""
    recall = np.array([earthdial.token_recall(r.answer, str(r.example.target)) for r in records])
    types = np.array([record.group or "" for record in records])
    metrics = {"VQA accuracy": float(recall.mean())}
    typed = np.isin(types, earthdial.VQA_TYPES)
    if typed.any():
        metrics["average"] = float(recall[typed].mean())
        present = [kind for kind in earthdial.VQA_TYPES if kind in types]
        metrics |= {f"{kind} Objects": float(recall[types == kind].mean()) for kind in present}
    return metrics


def _grounded(records: Sequence[AnsweredExample]) -> dict[str, float]:
    kept = [r for r in records if len(target_boxes(r.example.target)) < earthdial.GROUNDING_BOX_LIMIT]
    answers = [earthdial.description_words(r.answer) for r in kept]
    references = [earthdial.description_words(target_texts(r.example.target)[0]) for r in kept]
    return earthdial.grounding(_boxes(records)) | earthdial.region_captions(answers, references)


def _boxes(records: Sequence[AnsweredExample]) -> BoxPairs:
    """Predicted and true boxes with angles; a malformed box becomes an empty tuple, which hits nothing."""
    pairs = []
    for record in records:
        example = record.example
        names = tuple({box.label for box in target_boxes(example.target) if box.label})
        parsed = parse_boxes(record.answer, example.dialect, names and (*names, *example.labels)) or BoxAnswer((), ())
        predicted = [*map(_with_angle, parsed.boxes), *[()] * parsed.malformed]
        pairs.append((predicted, [_with_angle(box.coords) for box in target_boxes(record.example.target)]))
    return pairs


def _with_angle(coords: Coords) -> Coords:
    return (*coords, 0.0) if len(coords) == 4 else coords
