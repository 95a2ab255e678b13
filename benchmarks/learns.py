"""Learning of the demo: held-out rewards before and after RL, for three seeds.

``python -m benchmarks.learns --json OUT`` runs the demo recipe with seeds 0, 1 and 2 (8 to 10 minutes each on two
cores). For each seed, the paired change of the reward over all held-out examples must be at least 3 standard errors,
greedy and sampled; the greedy reward of no task may drop by more than 2 standard errors; that of every task with boxes
must exceed its best constant answer by 0.1 after training; and no single box may make up more than 5% of all greedy
boxes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, at_least, at_most, parser, publish
from geovlm_ray.evaluation.validation import MODES, Completion, read_completions
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.grammar import parse_response

SEEDS = (0, 1, 2)
SMOKE = ("run.steps=2", "evaluation.num_examples=12")
MIN_GAIN, MIN_TASK_CHANGE, MAX_BOX_SHARE = 3, -2, 0.05
MIN_ABOVE_CONSTANT = 0.1


def main() -> int:
    """Train, compare and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of the demo's settings")
    options = arguments.parse_args()
    seeds, overrides = (SEEDS[:1], [*SMOKE, *options.overrides]) if options.smoke else (SEEDS, options.overrides)
    figures, heldout = [], {}
    with tempfile.TemporaryDirectory(prefix="geovlm-learns-") as folder:
        for seed in seeds:
            run = train(seed, Path(folder), overrides)
            summary = json.loads((run / "summary.json").read_text())
            figures += seed_figures(seed, summary, read_completions(run / "heldout_after.jsonl"))
            heldout[str(seed)] = summary["heldout"]
    return publish("learns", figures, options, heldout=heldout)


def train(seed: int, folder: Path, overrides: list[str]) -> Path:
    """Run the demo with a seed and return the run directory."""
    settings = [f"run.dir={folder}", f"run.name=seed-{seed}", f"run.seed={seed}", f"data.seed={seed}", *overrides]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", "demo", *settings], check=True)
    return folder / f"seed-{seed}"


def seed_figures(seed: int, summary: dict[str, Any], after: list[Completion]) -> list[Figure]:
    """Mean rewards, rewards of the best constant answers, paired changes in standard errors, most common box."""
    heldout = summary["heldout"]
    figures = [
        Figure(f"seed {seed}: seconds", summary["seconds"]),
        Figure(f"seed {seed}: best constant answers, reward", heldout["constant"]["all"]["mean"]),
    ]
    for mode in MODES:
        before, last, change = (heldout[mode][key]["mean"] for key in ("before", "after", "change"))
        figures += [
            Figure(f"seed {seed}: {mode} reward before", before),
            Figure(f"seed {seed}: {mode} reward after", last),
            Figure(f"seed {seed}: {mode} paired change", change),
            at_least(f"seed {seed}: {mode} paired change, standard errors", in_errors(heldout[mode]), MIN_GAIN),
        ]
    for task, modes in heldout["per_task"].items():
        greedy = modes["greedy"]
        figures += [
            Figure(f"seed {seed}: {task}, best constant answer", heldout["constant"][task]["mean"]),
            Figure(f"seed {seed}: {task}, greedy before", greedy["before"]["mean"]),
            Figure(f"seed {seed}: {task}, greedy after", greedy["after"]["mean"]),
            at_least(f"seed {seed}: {task}, greedy change, standard errors", in_errors(greedy), MIN_TASK_CHANGE),
        ]
        if TASKS[task].target_kind == "boxes":
            above = greedy["after"]["mean"] - heldout["constant"][task]["mean"]
            figures.append(at_least(f"seed {seed}: {task}, greedy above constant", above, MIN_ABOVE_CONSTANT))
    share = largest_box_share(after)
    return [*figures, at_most(f"seed {seed}: share of the most common box", share, MAX_BOX_SHARE)]


def in_errors(pair: dict[str, Any]) -> float:
    """A paired change in units of its standard error; 0 if the standard error is 0."""
    change = pair["change"]
    return change["mean"] / change["se"] if change["se"] else 0.0


def largest_box_share(rows: list[Completion]) -> float:
    """Share of the most common box among all boxes of the greedy answers to box tasks."""
    boxes: Counter[tuple[float, ...]] = Counter()
    for row in rows:
        answer = parse_response(row["response"])
        if row["mode"] == "greedy" and answer and TASKS[row["task"]].target_kind == "boxes":
            parsed = read_boxes(answer.answer)
            boxes.update(parsed.boxes if parsed else ())
    return max(boxes.values(), default=0) / max(boxes.total(), 1)


if __name__ == "__main__":
    sys.exit(main())
