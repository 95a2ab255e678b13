"""The ``paper`` set on records of our own form: EarthDial's definitions where its scripts cannot read the text.

Boxes are read in the record's own dialect (one of four numbers has the angle 0), so that of the oddities those of
EarthDial's box parser do not apply; names of classes are joined with commas; of several references of a region the
first counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geovlm_ray.core.geometry import Coords
from geovlm_ray.core.schema import GroundedText
from geovlm_ray.evaluation.metrics import earthdial
from geovlm_ray.evaluation.metrics.earthdial_boxes import count_hits, pooled_precision
from geovlm_ray.evaluation.metrics.sound import Answered, answer_boxes, true_boxes
from geovlm_ray.tasks import TASKS

Boxes = list[tuple[list[Coords], list[Coords]]]


def paper_metrics(records: Sequence[Answered]) -> dict[str, float]:
    """The published metrics of at least one record, all of one task."""
    task = records[0].example.task
    kind = TASKS[task].target_kind
    answers = [record.answer for record in records]
    if kind == "classes":
        return earthdial.classification(answers, [", ".join(_strings(record)) for record in records])
    if kind == "vqa":
        return _questions(records)
    if kind == "boxes":
        boxes = _boxes(records)
        counted = {f"Precision @{threshold:g}": count_hits(boxes, threshold) for threshold in (0.5, 0.25)}
        sizes = [record.group or "" for record in records] if any(record.group for record in records) else None
        return {name: pooled_precision(counts) for name, counts in counted.items()} | earthdial.detection(boxes, sizes)
    if kind == "grounded":
        return _grounded(records)
    if task == "region_captioning":
        return earthdial.region_captions(answers, [_strings(record)[0] for record in records])
    return earthdial.captions(answers, list(map(_strings, records)))


def _questions(records: Sequence[Answered]) -> dict[str, float]:
    """Accuracy of all and, where the dataset has the types of RSVQA, by type; their average leaves counting out."""
    recall = np.array([earthdial.token_recall(r.answer, str(r.example.target)) for r in records])
    kinds = np.array([record.group or "" for record in records])
    found = {"VQA accuracy": float(recall.mean())}
    typed = np.isin(kinds, earthdial.VQA_TYPES)
    if typed.any():
        found["average"] = float(recall[typed].mean())
        there = [kind for kind in earthdial.VQA_TYPES if kind in kinds]
        found |= {f"{kind} Objects": float(recall[kinds == kind].mean()) for kind in there}
    return found


def _grounded(records: Sequence[Answered]) -> dict[str, float]:
    kept = [r for r in records if len(true_boxes(r.example)) < earthdial.CROWDED]
    answers = [earthdial.description_words(r.answer) for r in kept]
    references = [earthdial.description_words(_description(r)) for r in kept]
    return earthdial.grounding(_boxes(records)) | earthdial.region_captions(answers, references)


def _boxes(records: Sequence[Answered]) -> Boxes:
    """Boxes with an angle; a piece of an answer that is no box has no numbers, and so hits nothing."""
    pairs = []
    for record in records:
        found = answer_boxes(record)
        said = [*map(_with_angle, found.boxes), *[()] * found.malformed]
        pairs.append((said, [_with_angle(box.coords) for box in true_boxes(record.example)]))
    return pairs


def _with_angle(coords: Coords) -> Coords:
    return (*coords, 0.0) if len(coords) == 4 else coords


def _strings(record: Answered) -> tuple[str, ...]:
    return tuple(map(str, record.example.target))  # type: ignore[arg-type]


def _description(record: Answered) -> str:
    assert isinstance(record.example.target, GroundedText)
    return record.example.target.text
