"""Does the demo learn? The held-out reward before and after RL, for three seeds.

``python -m benchmarks.learns --json OUT`` runs the demo recipe with the seeds 0, 1 and 2 (about 8 minutes each
on two cores) and checks that the sampled reward gains at least 3 standard errors with each, and that the
paired 95% interval of the greedy change over all of them lies above -0.05.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Figure, at_least, parser, publish

SEEDS = (0, 1, 2)
GREEDY_MARGIN = -0.05


def main() -> int:
    """Run, compare, publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings that differ from the demo's"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="geovlm-learns-") as folder:
        summaries = [train(seed, Path(folder), options.overrides) for seed in SEEDS]
    figures = [figure for seed, summary in zip(SEEDS, summaries, strict=True) for figure in seed_figures(seed, summary)]
    changes = np.mean([greedy_changes(summary) for summary in summaries], axis=0)
    mean, se = float(changes.mean()), float(changes.std(ddof=1) / np.sqrt(len(changes)))
    figures += [
        Figure("greedy change, mean over scenes and seeds", mean),
        Figure("greedy change, standard error over scenes", se),
        at_least("greedy change, low end of the paired 95% interval", mean - 1.96 * se, GREEDY_MARGIN),
    ]
    heldout = {str(seed): summary["heldout"] for seed, summary in zip(SEEDS, summaries, strict=True)}
    return publish("learns", figures, options.json, heldout=heldout)


def train(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Run the demo with a seed and return its summary."""
    settings = [f"run.dir={folder}", f"run.name=seed-{seed}", f"run.seed={seed}", f"data.seed={seed}", *overrides]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", "demo", *settings], check=True)
    return json.loads((folder / f"seed-{seed}" / "summary.json").read_text())


def seed_figures(seed: int, summary: dict[str, Any]) -> list[Figure]:
    """Sampled gain in standard errors, and the means behind it."""
    sampled, greedy = (summary["heldout"][mode] for mode in ("sampled", "greedy"))
    gain = sampled["after"]["mean"] - sampled["before"]["mean"]
    se = float(np.hypot(sampled["before"]["se"], sampled["after"]["se"]))
    return [
        Figure(f"seed {seed}: seconds", summary["seconds"]),
        Figure(f"seed {seed}: sampled reward before", sampled["before"]["mean"]),
        Figure(f"seed {seed}: sampled reward after", sampled["after"]["mean"]),
        at_least(f"seed {seed}: sampled gain in standard errors", gain / se, 3),
        Figure(f"seed {seed}: greedy reward before", greedy["before"]["mean"]),
        Figure(f"seed {seed}: greedy reward after", greedy["after"]["mean"]),
    ]


def greedy_changes(summary: dict[str, Any]) -> np.ndarray:
    """After minus before of every held-out scene, [n], in the same order for every seed."""
    before, after = (summary["heldout_rewards"][when]["greedy"] for when in ("before", "after"))
    return np.concatenate([np.subtract(after[task], before[task]) for task in sorted(before)])


if __name__ == "__main__":
    sys.exit(main())
