"""Figures of a run: metrics, one JSON object per step, and those of its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects
from geovlm_ray.core.validation import validated

StepMetrics = Mapping[str, float]
"""Metrics of a step by name, and its number, ``step``."""


def read_metrics(file: Path) -> list[StepMetrics]:
    """The metrics in a file, as in `read_objects`; empty without the file.

    Raises:
        DataError: a line is not an object of numbers with a finite ``step``.
    """
    rows = read_objects(file) if file.is_file() else []
    metrics: list[StepMetrics] = []
    for number, row in enumerate(rows, 1):
        where = f"{file}, line {number}"
        metrics.append(validated(TypeAdapter(dict[str, float]), row, where))
        if not math.isfinite(metrics[-1].get("step", math.nan)):
            found = row.get("step", f"only {', '.join(map(repr, row))}")
            raise DataError(f"{where}: expected the number of a step as 'step', found {found!s:.200}")
    return metrics


class RunFigures(BaseModel):
    """The figures in ``summary.json`` beside the held-out rewards."""

    steps: int
    seconds: float
    parity_max_abs: float


def run_figures(summary: Mapping[str, Any]) -> RunFigures:
    """The figures of a summary; raises DataError for an invalid one."""
    return validated(TypeAdapter(RunFigures), summary, "summary.json")
