"""Evaluation against bare vLLM: ``python -m benchmarks.evaluation [--records 2000] [--json OUT]``.

An evaluation answers the examples of a synthetic benchmark greedily through a rollout actor on Ray, with scores and
predictions on disk. Bare vLLM answers them in the same actor. Both are interleaved, with empty caches.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import ray

from actors.cluster import connect
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from benchmarks import bare_vllm
from benchmarks.common import ROUNDS, Figure, at_least, parser, publish, ratio_figures, seconds
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.evaluation.examples import BenchmarkExamples, synthetic_examples
from geovlm_ray.evaluation.generate import generate_predictions
from geovlm_ray.evaluation.model import BATCH, default_reward_config
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.registry import find
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.serving.model_ref import resolve_model

SMOKE_RECORDS = 40


class MeasuredActor(RolloutActor):
    """A rollout actor that also exposes its bare engine."""

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """Preprocess the images of prompts, then empty the engine's caches."""
        self.engine.inputs(prompts)
        vllm_compat.reset_caches(self.engine.llm, idle=True)

    def bare(self, prompts: Sequence[Prompt]) -> None:
        """Answer the prompts with bare vLLM."""
        bare_vllm.generate(self.engine, prompts, greedy=True)


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--records", type=int, default=2000, help="examples per round (default: 2000)")
    arguments.add_argument("--model", default="tiny", help="model, as for `geovlm-ray evaluate` (default: tiny)")
    options = arguments.parse_args()
    records, rounds = (SMOKE_RECORDS, 1) if options.smoke else (options.records, ROUNDS)
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        ref = resolve_model(options.model)
        config = evaluation_config(ref.config, ref.path, Path(folder) / "evaluation")
        (benchmark,) = find(["drawn-object_detection"])
        figures = compare(config, synthetic_examples(benchmark, DATASET_FORMAT, records), Path(folder), rounds)
    return publish("evaluation", figures, options, model=options.model, records=records)


def compare(config: Config, examples: BenchmarkExamples, folder: Path, rounds: int) -> list[Figure]:
    """Examples per second of an evaluation and of bare vLLM; one more round comes first as warm-up."""
    connect()
    pool = RayRollouts(config, Path(config.model.path), actor_class=MeasuredActor)
    rewards = LocalRewards(default_reward_config(config.reward))
    prompts = [Prompt(i, item.example) for i, item in enumerate(examples)]
    measured: dict[str, list[float]] = {"evaluation": [], "alone": []}
    for _ in range(rounds + 1):
        ray.get(pool.actors[0].ready.remote(prompts))
        with tempfile.TemporaryDirectory(dir=folder) as out:
            predictions = Predictions(Path(out), "drawn")
            measured["evaluation"].append(
                seconds(partial(generate_predictions, examples, predictions, pool, rewards, BATCH, lambda done: None))
            )
        ray.get(pool.actors[0].ready.remote(prompts))
        measured["alone"].append(seconds(lambda: ray.get(pool.actors[0].bare.remote(prompts))))
    pool.close()
    ray.shutdown()
    ours, alone = (np.array(values[1:]) for values in measured.values())
    return [
        Figure("evaluation, records/s", len(examples) / float(np.median(ours))),
        Figure("vLLM alone, records/s", len(examples) / float(np.median(alone))),
        *ratio_figures("evaluation / vLLM alone, records/s", alone, ours, partial(at_least, limit=0.95)),
    ]


if __name__ == "__main__":
    sys.exit(main())
