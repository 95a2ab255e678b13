"""Training curves as SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geovlm_ray.core.terminal import inert
from geovlm_ray.report.metrics import StepMetrics

WINDOW = 0.1
"""Window of the moving average, as a fraction of the points."""
SHORT = 8
"""Lines with fewer points are not smoothed."""
Point = tuple[float, float]
MAX_CHARS = 100
"""Longer titles and legends are cut off."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: legend, points (step, value) and colour; None takes the next colour of the cycle."""

    legend: str
    points: Sequence[Point]
    colour: str | None = None


@dataclass(frozen=True)
class Level:
    """A horizontal line of a chart, such as the maximum reward."""

    legend: str
    value: float


def metric_line(rows: Sequence[StepMetrics], metric: str, legend: str) -> Line:
    """The finite values of a metric over steps."""
    return Line(legend, [(row["step"], row[metric]) for row in rows if metric in row and isfinite(row[metric])])


def curve(rows: Sequence[StepMetrics], names: Mapping[str, str], title: str, ylabel: str) -> Markup:
    """A chart of metrics over steps as an SVG element; ``names`` maps metrics to legends."""
    return chart([metric_line(rows, name, legend) for name, legend in names.items()], title, ylabel)


def chart(
    lines: Sequence[Line], title: str, ylabel: str, levels: Sequence[Level] = (), *, from_zero: bool = False
) -> Markup:
    """A chart as an SVG element with a text alternative; ``from_zero`` begins the y axis at 0.

    Thin lines are values, thick lines their moving average (`smoothed`). Fewer than `SHORT` points are not smoothed.
    """
    lines, title = [replace(line, legend=_label(line.legend)) for line in lines], _label(title)
    with mpl.rc_context({"text.parse_math": False}):
        figure = _figure(lines, title, ylabel, levels, from_zero)
        return as_svg(figure, description(lines, title, ylabel, levels))


def as_svg(figure: Figure, alternative: str) -> Markup:
    """A figure as an SVG element with a text alternative."""
    sink = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "text.parse_math": False}), warnings.catch_warnings():
        # Names that are long, or whose characters Matplotlib's font lacks; the reader of the page has other fonts.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(sink, format="svg", transparent=True)
    svg = sink.getvalue()[sink.getvalue().index("<svg") :]
    return Markup(svg.replace(" viewBox=", f' role="img" aria-label="{escape(alternative)}" viewBox=', 1))


def _figure(lines: Sequence[Line], title: str, ylabel: str, levels: Sequence[Level], from_zero: bool) -> Figure:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        if line.points:
            _plot(axes, line)
    axes.margins(y=0.1)
    for level in levels:
        axes.axhline(level.value, color="#64748b", linewidth=1, linestyle=(0, (4, 3)))
        label = f"{level.legend} {level.value:.4g}"
        at = ("axes fraction", "data")
        style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 8, "color": "#475569"}
        axes.annotate(label, (1, level.value), (0, 2), at, "offset points", **style)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.has_data() and len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    return figure


def _label(text: str) -> str:
    return inert(text, limit=MAX_CHARS)


def description(lines: Sequence[Line], title: str, ylabel: str, levels: Sequence[Level] = ()) -> str:
    """What a chart shows, as its text alternative: the ends and the range of every line."""
    parts = []
    for line in lines:
        steps, values = [step for step, _ in line.points], [value for _, value in line.points]
        if values:
            span = f"{values[0]:.3g} at step {steps[0]:g}, {values[-1]:.3g} at step {steps[-1]:g}"
            parts.append(f"{line.legend} {span}, between {min(values):.3g} and {max(values):.3g}")
    parts += [f"{level.legend} {level.value:.4g}" for level in levels]
    return f"Chart, {title}, {ylabel} by step: {'; '.join(parts) or 'no values'}."


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Centred moving average over `WINDOW` of the points, at least 5, where the whole window has values.

    It neither lags behind the values nor pulls the ends towards another value: a straight line stays as it is.
    """
    half = max(2, round(len(points) * WINDOW / 2))
    windows = ((points[i][0], points[i - half : i + half + 1]) for i in range(half, len(points) - half))
    return [(step, fmean(value for _, value in window)) for step, window in windows]


def _plot(axes: Axes, line: Line) -> None:
    if len(line.points) < SHORT:
        axes.plot(*zip(*line.points, strict=True), "o-", color=line.colour, markersize=4, label=line.legend)
        return
    (raw,) = axes.plot(*zip(*line.points, strict=True), color=line.colour, linewidth=0.8, alpha=0.35)
    axes.plot(*zip(*smoothed(line.points), strict=True), linewidth=2, color=raw.get_color(), label=line.legend)
