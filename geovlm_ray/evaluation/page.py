"""``results.html``: metrics, scores by slice, and the best and worst predictions of each benchmark, with images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geovlm_ray.core.files import write_atomically
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.results import Results
from geovlm_ray.evaluation.tables import SCALE, SETS, benchmark_lines, header, lines
from geovlm_ray.report.answers import shown_answer
from geovlm_ray.report.page import render
from geovlm_ray.report.reliability import reliability_diagram

SHOWN = 4
"""Best and worst predictions shown per benchmark, of each as many."""


def write_page(results: Results, folder: Path) -> Path:
    """Write the page of an evaluation into its folder and return its path.

    Raises:
        DataError: the predictions cannot be read.
    """
    page = render(
        "evaluation.html",
        results=results,
        scale=SCALE,
        sets=SETS,
        header=header(results),
        overview=[line.cells for line in lines(results) if line.benchmark or any(line.published)],
        benchmarks=[_benchmark(results, name, folder) for name in results.benchmarks],
    )
    write_atomically(folder / "results.html", page)
    return folder / "results.html"


def _benchmark(results: Results, name: str, folder: Path) -> dict[str, Any]:
    rows = sorted(Predictions(folder / "predictions", name).rows(), key=lambda row: row["score"])
    # The worst ones first if there are too few for both.
    worst = [row for row in rows[:SHOWN] if row["score"] < 1]
    best = sorted(rows[len(worst) :], key=lambda row: -row["score"])[:SHOWN]
    return {
        "name": name,
        "perfect": sum(row["score"] >= 1 for row in rows),
        "lines": [line.cells for line in benchmark_lines(results, name)],
        "reliability": reliability_diagram(bins) if (bins := results.benchmarks[name].reliability) else "",
        "cases": {"Lowest scores": [*map(shown_answer, worst)], "Highest scores": [*map(shown_answer, best)]},
    }
