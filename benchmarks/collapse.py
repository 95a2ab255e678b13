"""Warnings of runs: a run that is made to collapse must warn, healthy runs must not.

``python -m benchmarks.collapse --json OUT`` (about 20 minutes on two cores) trains the demo's policy with ten seeds,
40 steps each in one process, and once with a reward that pays for a constant answer to questions ("yes") at a high
learning rate. That run must give a warning of the kind ``dominant_answer``; none of the ten may give any warning.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, at_least, at_most, parser, publish
from geovlm_ray.core.files import read_objects

SEEDS, STEPS = range(10), 40
SHORT = ("rollout.prompts_per_step=16", "evaluation.num_examples=0", "checkpoint.every=1000")
REWARD = '''"""A reward that pays for one answer, whatever the image shows."""


def reward(response, target):
    return float("<answer>yes</answer>" in response)
'''
COLLAPSE = ("data.stages=[{steps: 1, tasks: [vqa]}]", "learner.lr=1e-3", "learner.lr_decay=constant")


def main() -> int:
    """Train, count warnings and publish."""
    options = parser(__doc__ or "").parse_args()
    steps, seeds = (2, SEEDS[:1]) if options.smoke else (STEPS, SEEDS)
    with tempfile.TemporaryDirectory(prefix="geovlm-collapse-") as folder:
        (Path(folder) / "constant.py").write_text(REWARD)
        healthy = {seed: warnings(Path(folder), f"healthy-{seed}", steps, f"run.seed={seed}") for seed in seeds}
        settings = (*COLLAPSE, f"reward.forms={{vqa: {folder}/constant.py:reward}}")
        collapsed = warnings(Path(folder), "collapsed", steps, *settings)
    dominant = [row for row in collapsed if row["kind"] == "dominant_answer"]
    figures = [
        at_most("healthy runs: warnings", sum(map(len, healthy.values())), 0),
        at_least("collapsing run: warnings of a dominant answer", len(dominant), 1),
        *(Figure("collapsing run: step of the first one", row["step"]) for row in dominant[:1]),
    ]
    return publish("collapse", figures, options, steps=steps, healthy=healthy, collapsed=collapsed)


def warnings(folder: Path, name: str, steps: int, *overrides: str) -> list[dict[str, Any]]:
    """Train in one process and return the run's warnings."""
    command = [str(Path(sys.executable).with_name("geovlm-ray")), "train", "demo", "--local", *SHORT, *overrides]
    subprocess.run(
        [*command, f"run.dir={folder}", f"run.name={name}", f"run.steps={steps}"], check=True, stdout=subprocess.DEVNULL
    )
    return read_objects(folder / name / "warnings.jsonl")


if __name__ == "__main__":
    sys.exit(main())
