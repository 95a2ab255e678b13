"""Throughput of rollout, learner, weight sync and rewards alone, and of the whole loop.

``python -m benchmarks.throughput [--recipe demo] [--json OUT] [section.key=value ...]``. A rollout actor is compared
with bare vLLM, which generates the same completions with the same engine in the same actor, interleaved, with empty
caches. The loop runs on Ray.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import ray
import torch

from actors.cluster import connect
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from benchmarks import bare_vllm
from benchmarks.common import Figure, at_least, parser, publish, ratio_figures, seconds
from benchmarks.rates import measure
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.files import read_objects
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.local import LocalRollouts, in_one_process, make_engine, make_learner
from geovlm_ray.training.preflight import prepare

ROUNDS = 3
ROLLOUT_ROUNDS = 12
"""Including one warm-up round."""
LOOP_STEPS = 6
SMOKE = ("rollout.prompts_per_step=8",)


def main() -> int:
    """Measure the loop and every part, and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    silence_third_party_logs()
    overrides = [*(SMOKE if options.smoke else ()), *options.overrides]
    loop_steps, rollout_rounds, rounds = (3, 2, 1) if options.smoke else (LOOP_STEPS, ROLLOUT_ROUNDS, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="geovlm-throughput-") as folder:
        config = load_config(options.recipe, [*overrides, f"run.dir={folder}", "run.name=parts"])
        ready = prepare(config)
        prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
        batches = [prompts.batch(i) for i in range(rollout_rounds)]
        print("Whole loop on Ray ...")
        loop = loop_metrics(options.recipe, overrides, Path(folder), loop_steps)
        figures = whole_loop(loop)
        print("Rollout actor against the bare engine ...")
        figures += rollout(config, ready.model, batches)
    print("Rewards, learner, sync ...")
    together = in_one_process(config)
    engine, learner = make_engine(together, ready.model), make_learner(together, ready.model)
    groups = engine.generate(batches[0])
    figures += rewards(config, groups, rounds)
    figures += train_and_sync(config, learner, engine, groups, rounds)
    print("Rates for `geovlm-ray plan` ...")
    unseen = (prompts.batch(i) for i in itertools.count(len(batches)))
    rates = measure(config, engine, learner, unseen, loop)
    figures += [Figure(f"whole loop, idle share of {kind}", share) for kind, share in rates["loop"]["idle"].items()]
    run = {"recipe": options.recipe, "overrides": overrides}
    return publish("throughput", figures, options, **run, rates=rates)


class MeasuredActor(RolloutActor):
    """A rollout actor that also exposes its bare engine."""

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """Preprocess the images of prompts, then empty the engine's caches."""
        self.engine.inputs(prompts)
        vllm_compat.reset_caches(self.engine.llm, idle=True)

    def bare(self, prompts: Sequence[Prompt]) -> float:
        """Tokens per second of bare vLLM with the same prompts, sampling parameters and seed."""
        begun = time.perf_counter()
        engine = self.engine
        outputs = bare_vllm.generate(engine, prompts)
        tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
        return tokens / (time.perf_counter() - begun)


def rollout(config: Config, model: Path, batches: Sequence[list[Prompt]]) -> list[Figure]:
    """Tokens per second of a rollout actor, used as in the loop, and of bare vLLM."""
    connect()
    one_actor = config.model_copy(update={"rollout": config.rollout.model_copy(update={"actors": 1})})
    pool = RayRollouts(one_actor, model, actor_class=MeasuredActor)
    measured = []
    for batch in batches:
        ray.get(pool.actors[0].ready.remote(batch))
        actor = tokens_per_second(pool, batch)
        ray.get(pool.actors[0].ready.remote(batch))
        measured.append((actor, ray.get(pool.actors[0].bare.remote(batch))))
    ray.shutdown()
    actor, bare = np.transpose(measured[1:])
    return [
        Figure("rollout actor only, tokens/s", float(np.median(actor))),
        Figure("bare vLLM engine, tokens/s", float(np.median(bare))),
        *ratio_figures("rollout actor / bare engine, tokens/s", actor, bare, partial(at_least, limit=0.97)),
    ]


def tokens_per_second(pool: RayRollouts, prompts: Sequence[Prompt]) -> float:
    """Generated tokens per second of a batch, from its submission until all groups have arrived."""
    begun = time.perf_counter()
    tokens = sum(len(sample.token_ids) for part in pool.submit(prompts) for group in part for sample in group.samples)
    return tokens / (time.perf_counter() - begun)


def rewards(config: Config, groups: Sequence[SampleGroup], rounds: int) -> list[Figure]:
    """Completions per second of the rewards in one process."""
    pool = LocalRewards(config.reward)
    scored = pool.score(groups)
    n = sum(len(g.samples) for g in scored)
    return [Figure("rewards only, completions/s", n / best_seconds(lambda: pool.score(groups), rounds))]


def train_and_sync(
    config: Config, learner: GrpoLearner, engine: Engine, groups: Sequence[SampleGroup], rounds: int
) -> list[Figure]:
    """Tokens per second of learner steps, and duration and size of a weight sync."""
    scored = LocalRewards(config.reward).score(groups)
    tokens = [learner.step(scored)["learner/tokens"]]
    step = best_seconds(lambda: tokens.append(learner.step(scored)["learner/tokens"]), rounds)
    rollouts = LocalRollouts(engine)
    sync = best_seconds(lambda: rollouts.update_weights(learner.weights), rounds)
    figures = [
        Figure("learner only, tokens/s", tokens[-1] / step),
        Figure("sync only, seconds", sync),
        Figure("sync only, MB", sum(bucket.nbytes for bucket in learner.weights([])) / 1e6),
    ]
    if torch.cuda.is_available():
        figures.append(Figure("peak GPU memory of this process, GB", torch.cuda.max_memory_allocated() / 1e9))
    return figures


def loop_metrics(recipe: str, overrides: list[str], folder: Path, steps: int) -> list[dict]:
    """The metrics of a few steps of the loop on Ray, run below ``folder``."""
    settings = [f"run.dir={folder}", "run.name=loop", f"run.steps={steps}", "evaluation.num_examples=0"]
    command = Path(sys.executable).with_name("geovlm-ray")
    subprocess.run([str(command), "train", recipe, *overrides, *settings], check=True)
    return read_objects(folder / "loop" / "metrics.jsonl")


def whole_loop(metrics: list[dict]) -> list[Figure]:
    """Tokens per second of the loop without its first step, and the share of each phase in a step."""
    rows = metrics[1:]
    step = sum(row["seconds/step"] for row in rows)
    parts = ("rollout", "resample", "parity", "learner", "sync")
    shares = {part: sum(row[f"seconds/{part}"] for row in rows) / step for part in parts}
    return [
        Figure("whole loop, tokens/s", sum(row["rollout/tokens"] for row in rows) / step),
        *(Figure(f"whole loop, share of a step spent in {part}", share) for part, share in shares.items()),
        Figure("whole loop, largest log-prob difference", max(row["parity/max_abs"] for row in rows)),
    ]


def best_seconds(call: Callable[[], object], rounds: int) -> float:
    """Shortest duration of a few calls."""
    return min(seconds(call) for _ in range(rounds))


if __name__ == "__main__":
    sys.exit(main())
