"""Evaluation against vLLM alone: ``python -m benchmarks.evaluation [--records 2000] [--json OUT]``.

The records of a drawn benchmark are answered greedily by an evaluation, through a rollout actor on Ray, with scores and
predictions on disk, and by vLLM alone in the same actor, in turns, with empty caches.
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
from benchmarks.common import ROUNDS, Figure, at_least, parser, publish, ratio_figures, seconds
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.evaluation.cases import Cases, drawn_cases
from geovlm_ray.evaluation.generate import generate_predictions
from geovlm_ray.evaluation.model import BATCH, yardstick
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.registry import find
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout import vllm_compat
from geovlm_ray.serving.model_ref import resolve_model


class MeasuredActor(RolloutActor):
    """A rollout actor whose engine can be used without it."""

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """Have read the images of prompts, and computed nothing of them."""
        self.engine.inputs(prompts)
        vllm_compat.reset_caches(self.engine.llm)

    def bare(self, prompts: Sequence[Prompt]) -> None:
        """Let vLLM alone answer the prompts."""
        engine = self.engine
        engine.llm.generate(engine.inputs(prompts), engine.sampling(greedy=True), use_tqdm=False)


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--records", type=int, default=2000, help="records a round (default: 2000)")
    arguments.add_argument("--model", default="tiny", help="as `geovlm-ray evaluate` takes it (default: tiny)")
    options = arguments.parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        ref = resolve_model(options.model)
        config = evaluation_config(ref.config, ref.path, Path(folder) / "evaluation")
        (benchmark,) = find(["drawn-object_detection"])
        figures = compare(config, drawn_cases(benchmark, options.records), Path(folder))
    return publish("evaluation", figures, options.json, model=options.model, records=options.records)


def compare(config: Config, cases: Cases, folder: Path) -> list[Figure]:
    """Records per second of both."""
    connect()
    pool = RayRollouts(config, Path(config.model.path), kind=MeasuredActor)
    rewards = LocalRewards(yardstick(config.reward))
    prompts = [Prompt(i, case.example) for i, case in enumerate(cases)]

    measured: dict[str, list[float]] = {"evaluation": [], "alone": []}
    for _ in range(ROUNDS + 1):
        ray.get(pool.actors[0].ready.remote(prompts))
        with tempfile.TemporaryDirectory(dir=folder) as out:
            predictions = Predictions(Path(out), "drawn")
            measured["evaluation"].append(
                seconds(partial(generate_predictions, cases, predictions, pool, rewards, BATCH, lambda done: None))
            )
        ray.get(pool.actors[0].ready.remote(prompts))
        measured["alone"].append(seconds(lambda: ray.get(pool.actors[0].bare.remote(prompts))))
    pool.close()
    ray.shutdown()
    ours, alone = (np.array(values[1:]) for values in measured.values())
    return [
        Figure("evaluation, records/s", len(cases) / float(np.median(ours))),
        Figure("vLLM alone, records/s", len(cases) / float(np.median(alone))),
        *ratio_figures("evaluation / vLLM alone, records/s", alone, ours, partial(at_least, limit=0.95)),
    ]


if __name__ == "__main__":
    sys.exit(main())
