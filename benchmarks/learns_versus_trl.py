"""Learning of the demo against TRL's GRPOTrainer: the sampled reward of both, step by step, in one picture.

``python -m benchmarks.learns_versus_trl --json OUT [--picture OUT.svg]`` (about 25 minutes on two cores) needs TRL:
``.venv/bin/uv pip install trl==1.16.0``. Same for both: the policy that the demo starts from, the scenes in the same
order, the reward, group size, temperature, maximum length, GRPO without KL, AdamW with the demo's constant learning
rate, one on-policy optimizer step per batch. The two draw different completions, so curves agree only on average: the
mean rewards of the last steps must not differ by more than three standard errors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback

from benchmarks.common import Figure, at_most, parser, publish
from benchmarks.versus_theirs import make_trainer
from geovlm_ray.config import load_config
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.report.curves import Line, chart
from geovlm_ray.rewards.score import score_batch
from geovlm_ray.training.preflight import prepare

STEPS, LAST = 100, 20
MAX_DIFFERENCE = 3.0
ROWS = 64
"""TRL's micro-batch size, its fastest for the tiny policy."""
OVERRIDES = (
    *("learner.lr_decay=constant", "learner.warmup_steps=0", "learner.threads=2", "loop.max_staleness=0"),
    *("evaluation.num_examples=0", "checkpoint.every=1000"),
)


def main() -> int:
    """Train both, compare and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--picture", type=Path, help="output file of both reward curves, an SVG")
    options = arguments.parse_args()
    steps = 2 if options.smoke else STEPS
    overrides = [*OVERRIDES, f"run.steps={steps}", *(["rollout.prompts_per_step=8"] if options.smoke else [])]
    curves = {"geovlm_ray": ours(overrides), "TRL": theirs(overrides)}
    if options.picture:
        lines = [Line(name, list(enumerate(rewards, start=1))) for name, rewards in curves.items()]
        write_atomically(options.picture, chart(lines, "Sampled reward of the same policy and scenes", "mean reward"))
    return publish("learns_versus_trl", compare(curves, min(LAST, steps)), options, steps=steps, rewards=curves)


def ours(overrides: Sequence[str]) -> list[float]:
    """Mean reward of every step of a run in one process."""
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        command = [str(Path(sys.executable).with_name("geovlm-ray")), "train", "demo", "--local"]
        subprocess.run([*command, *overrides, f"run.dir={folder}", "run.name=ours"], check=True)
        return [json.loads(line)["reward/mean"] for line in (Path(folder) / "ours" / "metrics.jsonl").open()]


def theirs(overrides: Sequence[str]) -> list[float]:
    """Mean reward of every step of TRL's trainer, in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_theirs, (list(overrides),))


def _train_theirs(overrides: list[str]) -> list[float]:
    silence_third_party_logs()
    config = load_config("demo", overrides)
    ready = prepare(config)
    sampler = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    examples = [prompt.example for step in range(config.run.steps) for prompt in sampler.batch(step)]
    means: list[float] = []

    def reward(completions: Sequence[Any], index: Sequence[int], **_: Any) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        scores = score_batch(texts, [examples[i] for i in index], config.reward)
        means.append(float(np.mean([score.total for score in scores])))
        print(f"TRL: step {len(means)}/{config.run.steps}  reward {means[-1]:.3f}", flush=True)
        return [score.total for score in scores]

    rows = min(ROWS, config.rollout.prompts_per_step * config.rollout.group_size)
    trainer = make_trainer(config, ready, rows, reward, batches=config.run.steps)
    trainer.remove_callback(PrinterCallback)
    trainer.args.max_steps = config.run.steps
    trainer.train()
    return means


def compare(curves: dict[str, list[float]], last: int) -> list[Figure]:
    """Mean rewards of the first and last steps, and the difference of the last in standard errors, paired by step."""
    difference = np.subtract(*[np.array(rewards[-last:]) for rewards in curves.values()])
    error = float(difference.std(ddof=1) / np.sqrt(last)) or 1.0
    return [
        *(Figure(f"{name}: reward of the first {last} steps", float(np.mean(r[:last]))) for name, r in curves.items()),
        *(Figure(f"{name}: reward of the last {last} steps", float(np.mean(r[-last:]))) for name, r in curves.items()),
        at_most("difference of the last steps, standard errors", abs(float(difference.mean())) / error, MAX_DIFFERENCE),
    ]


if __name__ == "__main__":
    sys.exit(main())
