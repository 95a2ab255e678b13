"""Where the time goes: rollout, learner, sync and rewards alone, and the whole loop.

``python -m benchmarks.throughput [--recipe demo] [--json OUT] [section.key=value ...]``. A rollout actor is compared
with vLLM alone, which draws the same completions of the same prompts from the same engine in the same actor, in turns,
with empty caches; the loop runs on Ray.
"""

from __future__ import annotations

import itertools
import json
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
from benchmarks.common import Figure, at_least, parser, publish, ratio_figures
from benchmarks.rates import measure
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.rollout.engine import Engine, draw_seed
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner
from geovlm_ray.training.preflight import prepare

ROUNDS = 3
ROLLOUT_ROUNDS = 12
"""The first of which is not counted."""
LOOP_STEPS = 6


def main() -> int:
    """Measure every part, then the loop, and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--recipe", default="demo", help="recipe or YAML file (default: demo)")
    arguments.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = arguments.parse_args()
    silence_third_party_logs()
    config = load_config(options.recipe, options.overrides)
    ready = prepare(config)
    prompts = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    batches = [prompts.batch(i) for i in range(ROLLOUT_ROUNDS)]
    print("Whole loop on Ray ...")
    loop = loop_metrics(options.recipe, options.overrides)
    figures = whole_loop(loop)
    print("Rollout actor against the bare engine ...")
    figures += rollout(config, ready.model, batches)
    print("Rewards, learner, sync ...")
    engine, learner = make_engine(config, ready.model), make_learner(config, ready.model)
    groups = engine.generate(batches[0])
    figures += rewards(config, groups)
    figures += train_and_sync(config, learner, engine, groups)
    print("Rates for `geovlm-ray plan` ...")
    unseen = (prompts.batch(i) for i in itertools.count(len(batches)))
    rates = measure(config, engine, learner, unseen, loop)
    figures += [Figure(f"whole loop, idle share of {kind}", share) for kind, share in rates["loop"]["idle"].items()]
    made_with = {"recipe": options.recipe, "overrides": options.overrides}
    return publish("throughput", figures, options.json, **made_with, rates=rates)


class MeasuredActor(RolloutActor):
    """A rollout actor whose engine can be used without it."""

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """Have read the images of prompts, and computed nothing of them."""
        self.engine.inputs(prompts)
        vllm_compat.reset_caches(self.engine.llm)

    def bare(self, prompts: Sequence[Prompt]) -> float:
        """Tokens per second of vLLM alone, with the same prompts, sampling and seed."""
        begun = time.perf_counter()
        engine = self.engine
        torch.manual_seed(draw_seed(engine.seed, prompts[0].group_id))
        outputs = engine.llm.generate(engine.inputs(prompts), engine.sampling(), use_tqdm=False)
        tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
        return tokens / (time.perf_counter() - begun)


def rollout(config: Config, model: Path, batches: Sequence[list[Prompt]]) -> list[Figure]:
    """Tokens per second of a rollout actor, as the loop uses it, and of vLLM alone."""
    connect()
    alone = config.model_copy(update={"rollout": config.rollout.model_copy(update={"actors": 1})})
    pool = RayRollouts(alone, model, kind=MeasuredActor)
    measured = []
    for batch in batches:
        ray.get(pool.actors[0].ready.remote(batch))
        actor = drawn_per_second(pool, batch)
        ray.get(pool.actors[0].ready.remote(batch))
        measured.append((actor, ray.get(pool.actors[0].bare.remote(batch))))
    ray.shutdown()
    actor, bare = np.transpose(measured[1:])
    return [
        Figure("rollout actor only, tokens/s", float(np.median(actor))),
        Figure("bare vLLM engine, tokens/s", float(np.median(bare))),
        *ratio_figures("rollout actor / bare engine, tokens/s", actor, bare, partial(at_least, limit=0.97)),
    ]


def drawn_per_second(pool: RayRollouts, prompts: Sequence[Prompt]) -> float:
    """Tokens per second of a batch, from its submission until all of its groups have come."""
    begun = time.perf_counter()
    tokens = sum(len(sample.token_ids) for part in pool.submit(prompts) for group in part for sample in group.samples)
    return tokens / (time.perf_counter() - begun)


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
        settings = [
            *overrides,
            f"run.dir={folder}",
            "run.name=loop",
            f"run.steps={LOOP_STEPS}",
            "evaluation.num_examples=0",
        ]
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
