"""What the reasoning is good for: whether it names what the answer says, and what becomes of the answer without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from geovlm_ray.evaluation.consistency import KINDS, consistency
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, means
from geovlm_ray.evaluation.metrics.sound import Answered
from geovlm_ray.evaluation.predictions import PredictionRow, row_example
from geovlm_ray.tasks.grammar import Parsed, parse_response

Figures = dict[str, dict[str, float]]
"""Name: ``n``, ``value``, ``low`` and ``high``."""


def removed(reasonings: Sequence[str]) -> list[str]:
    """No reasoning."""
    return [""] * len(reasonings)


def swapped(reasonings: Sequence[str]) -> list[str]:
    """Each the reasoning of another record of the benchmark."""
    half = len(reasonings) // 2
    return [*reasonings[half:], *reasonings[:half]]


VARIANTS: dict[str, Callable[[Sequence[str]], list[str]]] = {"removed": removed, "swapped": swapped}


def prefills(rows: Sequence[PredictionRow], variant: str) -> dict[int, str]:
    """By place how the response to each record begins whose own response keeps the answer grammar."""
    kept = {row["place"]: parsed.think or "" for row in rows if (parsed := _parsed(row))}
    others = VARIANTS[variant](list(kept.values()))
    return {place: f"<think>{reasoning}</think><answer>" for place, reasoning in zip(kept, others, strict=True)}


def named(rows: Sequence[PredictionRow]) -> Figures:
    """How often the reasoning names what the answer says, by kind, over the responses whose answer says such."""
    found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for row in rows:
        parsed = _parsed(row)
        if parsed:
            answered = Answered(parsed.answer, row_example(row), row["group"])
            for kind, true in consistency(parsed.think or "", answered).items():
                found[kind].append(true)
    return {f"names {kind}": _figure(np.array(values, dtype=float)) for kind, values in found.items() if values}


def effect(rows: Sequence[PredictionRow], again: Sequence[PredictionRow], variant: str) -> Figures:
    """Score with the reasoning as it was and as in a variant, on the records that were asked again."""
    before = {row["place"]: row for row in rows}
    pairs = [(before[row["place"]], row) for row in again]
    if not pairs:
        return {}
    own, other = (np.array([pair[side]["score"] for pair in pairs]) for side in (0, 1))
    same = np.array([_answer(old) == _answer(new) for old, new in pairs], dtype=float)
    return {
        f"{variant}: score": _figure(other),
        f"{variant}: change of score": _figure(other - own),
        f"{variant}: same answer": _figure(same),
    }


def _figure(values: np.ndarray) -> dict[str, float]:
    interval: Interval = intervals(means({"value": values}), len(values))["value"]
    return {"n": len(values), "value": interval.value, "low": interval.low, "high": interval.high}


def _parsed(row: Mapping[str, object]) -> Parsed | None:
    return parse_response(str(row["completion"]))


def _answer(row: PredictionRow) -> str:
    parsed = _parsed(row)
    return parsed.answer.strip() if parsed else ""
