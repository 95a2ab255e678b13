"""The README's picture of a run: held-out scenes before and after RL, and the sampled reward of every step.

    python docs/demo_picture.py runs/demo docs/demo.png

The scenes are those whose greedy reward changed most: the four that gained most, and the one that lost most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geovlm_ray.report.curves import smoothed
from geovlm_ray.report.held_out_cases import Case, Pair, read_pairs, shown_case
from geovlm_ray.report.metrics import read_metrics

GAINED, LOST = 4, 1
BOX_TASKS = ("object_detection", "visual_grounding")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="draw the README's picture of a run")
    parser.add_argument("run", type=Path, help="finished run with held-out examples")
    parser.add_argument("out", type=Path, help="output PNG")
    args = parser.parse_args()
    pairs, problem = read_pairs(args.run)
    if problem or not pairs:
        parser.error(f"{args.run}: expected held-out answers before and after training, found {problem or 'none'}")
    cases = [shown_case(pair, "required") for pair in most_changed(pairs)]
    figure = Figure(figsize=(14, 5.0), layout="constrained")
    cells = figure.add_gridspec(2, len(cases) + 2, width_ratios=[1] * len(cases) + [1.1, 1.1])
    for column, case in enumerate(cases):
        for row in range(2):
            draw_answer(figure.add_subplot(cells[row, column]), case, row)
    draw_curve(figure.add_subplot(cells[:, len(cases) :]), args.run)
    figure.supxlabel(
        "The four scenes that gained most by RL, and the one that lost most", x=0.01, ha="left", fontsize=10
    )
    figure.savefig(args.out, dpi=80)


def most_changed(pairs: list[Pair]) -> list[Pair]:
    """Examples of tasks with boxes: those that gained most, then those that lost most."""
    boxes = [pair for pair in pairs if pair.after["task"] in BOX_TASKS]
    ordered = sorted(boxes, key=lambda pair: pair.before["reward"] - pair.after["reward"])
    return [*ordered[:GAINED], *ordered[-LOST:]]


def draw_answer(axes: Axes, case: Case, which: int) -> None:
    """The scene with true and predicted boxes before (0) or after (1) training."""
    answer = case.responses[which]
    axes.imshow(case.pictures[which].image)
    axes.set_axis_off()
    when = ("before RL", "after RL")[which]
    axes.set_title(f"{when}: reward {answer.reward:.2f}", fontsize=10)


def draw_curve(axes: Axes, run: Path) -> None:
    """The mean sampled reward of every step, and its moving average."""
    points = [(float(row["step"]), float(row["reward/mean"])) for row in read_metrics(run / "metrics.jsonl")]
    axes.plot(*zip(*points, strict=True), color="#2563eb", alpha=0.35, linewidth=1, label="each step")
    axes.plot(*zip(*smoothed(points), strict=True), color="#2563eb", linewidth=2.2, label="moving average")
    axes.set_title("sampled reward (at most 2)", fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
