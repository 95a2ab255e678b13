"""Reliability diagram: mean score by confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR
from geovlm_ray.report.curves import as_svg


def reliability_diagram(bins: Sequence[Mapping[str, float]]) -> Markup:
    """A diagram of the bins of `geovlm_ray.evaluation.metrics.calibration.reliability` as an SVG element.

    Points above the diagonal are too modest, points below it too confident; their areas grow with the records.
    """
    figure = Figure(figsize=(3.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=TRUE_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
    total = sum(row["n"] for row in bins)
    x, y = [row["confidence"] for row in bins], [row["score"] for row in bins]
    axes.plot(x, y, color=PREDICTED_COLOUR, linewidth=1)
    axes.scatter(x, y, [15 + 200 * row["n"] / total for row in bins], color=PREDICTED_COLOUR, alpha=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="mean score")
    axes.set_title("Reliability", fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    points = "; ".join(f"{row['confidence']:.2f}: {row['score']:.2f} of {row['n']:,.0f} records" for row in bins)
    return as_svg(figure, f"Reliability diagram, mean score by confidence: {points}.")
