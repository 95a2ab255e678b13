"""Reasoning metrics: consistency with the answer, and the effect of removing or swapping the reasoning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geovlm_ray.data.sample_rows import row_example
from geovlm_ray.evaluation.consistency import KINDS, consistency
from geovlm_ray.evaluation.metrics.bootstrap import counted_mean
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.evaluation.predictions import PredictionRow
from geovlm_ray.tasks.answers.grammar import parse_response

Metrics = dict[str, dict[str, float]]
"""{metric: {"n", "value", "low", "high"}}."""


VARIANTS: dict[str, Callable[[list[str]], list[str]]] = {
    "removed": lambda reasonings: [""] * len(reasonings),
    "swapped": lambda reasonings: reasonings[len(reasonings) // 2 :] + reasonings[: len(reasonings) // 2],
}
"""Reasoning of every record without its reasoning, or with that of another record."""


def variant_prefills(rows: Sequence[PredictionRow], variant: str) -> dict[int, str]:
    """Response prefill by place, for the records whose original response follows the answer grammar."""
    original = {row["place"]: parsed.think or "" for row in rows if (parsed := parse_response(row["completion"]))}
    modified = VARIANTS[variant](list(original.values()))
    return {place: f"<think>{reasoning}</think><answer>" for place, reasoning in zip(original, modified, strict=True)}


def consistency_metrics(rows: Sequence[PredictionRow]) -> Metrics:
    """``names KIND``: share of responses whose reasoning names the answer's facts of that kind, if it has any."""
    consistent: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for row in rows:
        parsed = parse_response(row["completion"])
        if parsed:
            answered = AnsweredExample(parsed.answer, row_example(row), row["group"])
            for kind, is_named in consistency(parsed.think or "", answered).items():
                consistent[kind].append(is_named)
    return {f"names {kind}": counted_mean(values) for kind, values in consistent.items() if values}


def variant_metrics(rows: Sequence[PredictionRow], variant_rows: Sequence[PredictionRow], variant: str) -> Metrics:
    """Score with modified reasoning, its change, and the share of unchanged answers, on the variant's records."""
    originals = {row["place"]: row for row in rows}
    pairs = [(originals[row["place"]], row) for row in variant_rows]
    if not pairs:
        return {}
    before, after = (np.array([pair[side]["score"] for pair in pairs]) for side in (0, 1))
    return {
        f"{variant}: score": counted_mean(after),
        f"{variant}: change of score": counted_mean(after - before),
        f"{variant}: same answer": counted_mean([_answer(original) == _answer(other) for original, other in pairs]),
    }


def _answer(row: PredictionRow) -> str:
    parsed = parse_response(row["completion"])
    return parsed.answer.strip() if parsed else ""
