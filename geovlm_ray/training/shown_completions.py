"""The completions of a step that experiment trackers show."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.data.sample_rows import SampleRow
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion
from geovlm_ray.report.answers import pictures_or_reason, reference_text
from geovlm_ray.report.gallery import best_median_worst


def shown_completions(step: int, rows: Sequence[SampleRow]) -> list[ShownCompletion]:
    """The best, median and worst completion of one group per task."""
    shown = []
    for group in best_median_worst(rows):
        for rank, row in zip(("best", "median", "worst"), group, strict=False):
            pictures, _ = pictures_or_reason(row)
            values = {**row, "step": step, "reference": reference_text(row)}
            shown.append(
                ShownCompletion(
                    name=f"{row['task']}/{rank}",
                    values=tuple(values[column] for column in COLUMNS),
                    picture=pictures[-1].image if pictures else None,
                    caption=f"{row['question']} {row['completion']} (reward {row['reward']:.3f})",
                )
            )
    return shown
