"""The picture of a longer run: sampled reward, greedy accuracy on held-out scenes, and entropy over the steps.

    python docs/learning_curve.py runs/longer docs/learning-curve.png

The run must have been evaluated on benchmarks while it was trained (``evaluation.every``).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geovlm_ray.report.curves import smoothed
from geovlm_ray.report.metrics import StepMetrics, read_metrics

COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#475569")
MARKERS = "osD^vP"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="draw the learning curves of a run")
    parser.add_argument("run", type=Path, help="finished run with evaluations during training")
    parser.add_argument("out", type=Path, help="output PNG")
    args = parser.parse_args()
    scores = benchmark_scores(args.run / "evaluations")
    if not scores:
        parser.error(f"{args.run}: expected evaluations during training, found none")
    steps = read_metrics(args.run / "metrics.jsonl")
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    reward, accuracy, entropy = figure.subplots(1, 3)
    draw_metric(reward, steps, "reward/mean", "sampled reward (at most 2)")
    draw_accuracy(accuracy, scores)
    draw_metric(entropy, steps, "entropy/sampled", "entropy of the policy (nats per token)")
    entropy.set_ylim(bottom=0)
    for axes in (reward, accuracy, entropy):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        # Between the tasks that the initial policy has nearly solved and those with boxes.
        place = {"loc": "center", "bbox_to_anchor": (0.5, 0.68), "ncols": 2} if axes is accuracy else {}
        axes.legend(fontsize=9, frameon=False, **place)
    figure.savefig(args.out, dpi=80)


def benchmark_scores(folder: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """By benchmark, the step and the score (``value``, ``low``, ``high``) of each evaluation."""
    found = defaultdict(list)
    for file in sorted(folder.glob("step-*/results.json")):
        for name, result in json.loads(file.read_text())["benchmarks"].items():
            found[name].append((int(file.parent.name.removeprefix("step-")), result["score"]))
    return found


def draw_metric(axes: Axes, steps: list[StepMetrics], metric: str, title: str) -> None:
    """A metric of every step, and its moving average."""
    points = [(float(row["step"]), float(row[metric])) for row in steps]
    axes.plot(*zip(*points, strict=True), color=COLOURS[0], alpha=0.35, linewidth=1, label="each step")
    axes.plot(*zip(*smoothed(points), strict=True), color=COLOURS[0], linewidth=2.2, label="moving average")
    axes.set_title(title, fontsize=11, loc="left")


def draw_accuracy(axes: Axes, scores: dict[str, list[tuple[int, dict[str, Any]]]]) -> None:
    """The greedy accuracy of each benchmark with its 95% intervals."""
    for (name, points), colour, marker in zip(scores.items(), COLOURS, MARKERS, strict=False):
        x = [step for step, _ in points]
        y = [score["value"] for _, score in points]
        below, above = ([abs(score[end] - score["value"]) for _, score in points] for end in ("low", "high"))
        legend = name.removeprefix("drawn-").replace("_", " ")
        axes.errorbar(x, y, (below, above), color=colour, marker=marker, markersize=4, capsize=2, label=legend)
    axes.set_title("greedy accuracy on held-out scenes, 95% intervals", fontsize=11, loc="left")


if __name__ == "__main__":
    main()
