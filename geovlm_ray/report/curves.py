"""Curves of a run as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

SMOOTHING = 0.15
Row = Mapping[str, float]


def curve(rows: Sequence[Row], names: Mapping[str, str], title: str, ylabel: str) -> str:
    """One chart of metrics over steps as an SVG element; ``names`` maps a metric to its legend.

    Thin lines are the values, thick ones their exponential mean where there are enough steps for one.
    """
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for name, legend in names.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        few = len(points) < 8
        (line,) = axes.plot(
            steps, values, linewidth=1.8 if few else 0.8, alpha=1 if few else 0.35, marker="o" if few else ""
        )
        if few:
            line.set_label(legend)
        else:
            axes.plot(steps, _smooth(values), linewidth=2, color=line.get_color(), label=legend)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.has_data() and len(names) > 1:
        axes.legend(fontsize=8, frameon=False)
    sink = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", transparent=True)
    return sink.getvalue()[sink.getvalue().index("<svg") :]


def _smooth(values: Sequence[float]) -> list[float]:
    smoothed = [values[0]]
    for value in values[1:]:
        smoothed.append(smoothed[-1] + SMOOTHING * (value - smoothed[-1]))
    return smoothed
