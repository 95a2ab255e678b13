"""Training curves as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

SMOOTHING = 0.15
"""Weight of the newest value in the exponential moving average."""
StepMetrics = Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """A line of a chart: legend, points (step, value) and colour; None takes the next colour of the cycle."""

    legend: str
    points: Sequence[tuple[float, float]]
    colour: str | None = None


def curve(rows: Sequence[StepMetrics], names: Mapping[str, str], title: str, ylabel: str) -> Markup:
    """A chart of metrics over steps as an SVG element; ``names`` maps metrics to legends."""
    lines = [Line(legend, [(row["step"], row[name]) for row in rows if name in row]) for name, legend in names.items()]
    return chart(lines, title, ylabel)


def chart(lines: Sequence[Line], title: str, ylabel: str) -> Markup:
    """A chart as an SVG element.

    Thin lines are values, thick lines their exponential moving average. Fewer than 8 points are not smoothed.
    """
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        if not line.points:
            continue
        steps, values = zip(*line.points, strict=True)
        is_short = len(steps) < 8
        width, alpha, marker = (1.8, 1.0, "o") if is_short else (0.8, 0.35, "")
        (curve_line,) = axes.plot(steps, values, color=line.colour, linewidth=width, alpha=alpha, marker=marker)
        if is_short:
            curve_line.set_label(line.legend)
        else:
            smoothed = list(accumulate(values, lambda mean, value: mean + SMOOTHING * (value - mean)))
            axes.plot(steps, smoothed, linewidth=2, color=curve_line.get_color(), label=line.legend)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.has_data() and len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    sink = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", transparent=True)
    return Markup(sink.getvalue()[sink.getvalue().index("<svg") :])
