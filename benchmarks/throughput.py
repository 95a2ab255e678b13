"""Where the time goes: rollout, learner, sync and rewards alone, and the whole loop.

``python -m benchmarks.throughput [--recipe demo] [--json OUT] [section.key=value ...]``. Rollout is compared
with the bare vLLM engine on the same prompts, in turns within the same process; the loop runs on Ray.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Figure, parser, publish
from benchmarks.rates import measure
from geovlm_ray.config import Config, load_config
from geovlm_ray.data.sampler import Sampler
from geovlm_ray.grpo.learner import GrpoLearner
from geovlm_ray.local import LocalRewards, LocalRollouts, make_engine, make_learner
from geovlm_ray.preflight import prepare
from geovlm_ray.quiet import quiet
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.schema import Prompt, SampleGroup

ROUNDS = 3
LOOP_STEPS = 6


def main() -> int:
    """Measure every part, then the loop, and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    quiet()
    config = load_config(options.recipe, options.overrides)
    ready = prepare(config)
    prompts = Sampler(ready.stream, config.data, config.rollout.prompts_per_step)
    batches = [prompts.batch(i) for i in range(2 * ROUNDS + 2)]
    print("Whole loop on Ray ...")
    loop = loop_metrics(options.recipe, options.overrides)
    figures = whole_loop(loop)
    print("Rollout against the bare engine ...")
    engine, learner = make_engine(config, ready.model), make_learner(config, ready.model)
    figures += rollout(engine, batches)
    print("Rewards, learner, sync ...")
    groups = engine.generate(batches[0])
    figures += rewards(config, groups)
    figures += train_and_sync(config, learner, engine, groups)
    print("Rates for `geovlm-ray plan` ...")
    unseen = (prompts.batch(i) for i in itertools.count(len(batches)))
    rates = measure(config, engine, learner, unseen, loop)
    made_with = {"recipe": options.recipe, "overrides": options.overrides}
    return publish("throughput", figures, options.json, **made_with, rates=rates)


def rollout(engine: Engine, batches: Sequence[list[Prompt]]) -> list[Figure]:
    """Tokens per second of the rollout engine and of vLLM alone, in turns, each batch new to both caches."""
    engine.generate(batches[0])
    ours, bare = [], []
    for i in range(ROUNDS):
        ours.append(tokens_per_second(lambda b=batches[1 + 2 * i]: count(engine.generate(b))))
        bare.append(tokens_per_second(lambda b=batches[2 + 2 * i]: bare_tokens(engine, b)))
    return [
        Figure("rollout only, tokens/s", float(np.median(ours))),
        Figure("bare vLLM engine, tokens/s", float(np.median(bare))),
        Figure("rollout only / bare engine", float(np.median(np.divide(ours, bare)))),
    ]


def bare_tokens(engine: Engine, batch: Sequence[Prompt]) -> int:
    """Draw a batch by vLLM alone, with the same prompts and sampling; returns the number of tokens."""
    outputs = engine.llm.generate(engine.inputs(batch), engine.sampling(), use_tqdm=False)
    return sum(len(completion.token_ids) for output in outputs for completion in output.outputs)


def rewards(config: Config, groups: Sequence[SampleGroup]) -> list[Figure]:
    """Completions per second of the rewards in one process."""
    pool = LocalRewards(config.reward)
    scored = pool.score(groups)
    n = sum(len(g.samples) for g in scored)
    seconds = best_seconds(lambda: pool.score(groups))
    return [Figure("rewards only, completions/s", n / seconds)]


def train_and_sync(config: Config, learner: GrpoLearner, engine: Engine, groups: Sequence[SampleGroup]) -> list[Figure]:
    """Tokens per second of learner steps, and the time of a weight sync."""
    scored = LocalRewards(config.reward).score(groups)
    trained = [learner.step(scored)["learner/tokens"]]
    seconds = best_seconds(lambda: trained.append(learner.step(scored)["learner/tokens"]))
    rollouts = LocalRollouts(engine)
    sync = best_seconds(lambda: rollouts.update_weights(learner.weights()))
    figures = [
        Figure("learner only, tokens/s", trained[-1] / seconds),
        Figure("sync only, seconds", sync),
        Figure("sync only, MB", sum(bucket.nbytes for bucket in learner.weights()) / 1e6),
    ]
    if torch.cuda.is_available():
        figures.append(Figure("peak GPU memory of this process, GB", torch.cuda.max_memory_allocated() / 1e9))
    return figures


def loop_metrics(recipe: str, overrides: list[str]) -> list[dict]:
    """The metrics of a few steps of the loop on Ray."""
    with tempfile.TemporaryDirectory(prefix="geovlm-throughput-") as folder:
        settings = [*overrides, f"run.dir={folder}", "run.name=loop", f"run.steps={LOOP_STEPS}", "evaluation.scenes=0"]
        command = Path(sys.executable).with_name("geovlm-ray")
        subprocess.run([str(command), "train", recipe, *settings], check=True)
        lines = (Path(folder) / "loop" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def whole_loop(metrics: list[dict]) -> list[Figure]:
    """Tokens per second of the loop, its first step left out, and each part's share of a step."""
    rows = metrics[1:]
    step = sum(row["seconds/step"] for row in rows)
    parts = ("rollout", "resample", "parity", "learner", "sync")
    shares = {part: sum(row[f"seconds/{part}"] for row in rows) / step for part in parts}
    return [
        Figure("whole loop, tokens/s", sum(row["rollout/tokens"] for row in rows) / step),
        *(Figure(f"whole loop, share of a step spent in {part}", share) for part, share in shares.items()),
        Figure("whole loop, largest log-prob difference", max(row["parity/max_abs"] for row in rows)),
    ]


def count(groups: Sequence[SampleGroup]) -> int:
    """Tokens of all samples."""
    return sum(len(s.token_ids) for g in groups for s in g.samples)


def tokens_per_second(draw: Callable[[], int]) -> float:
    """Rate of one draw."""
    begun = time.perf_counter()
    return draw() / (time.perf_counter() - begun)


def best_seconds(call: Callable[[], object]) -> float:
    """Least duration of a few calls."""
    durations = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begun)
    return min(durations)


if __name__ == "__main__":
    sys.exit(main())
