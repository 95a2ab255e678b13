"""Weights on their way to a rollout actor, checksums included, against a plain copy of the same bytes.

``python -m benchmarks.sync [--json OUT]`` (about 2 minutes). The weights of one decoder layer of the 3B's size with a
small vision tower (350 MB in fp32) go from the learner actor through Ray's object store to another actor, which
verifies them: the loop's own path, up to where an engine would load them. Reported beside it: the engine's own reload
of the same weights in one process, and what an adapter of rank 16 on all linear layers of the language model moves.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import ray

from actors.cluster import connect
from actors.learner import RayLearner
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from benchmarks.common import Figure, at_least, at_most, in_turns, parser, publish, ratio_figures, seconds
from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner
from geovlm_ray.transport.buckets import Inbox, WeightBucket

ROUNDS = 14
"""More than elsewhere, since a transfer takes less than 0.1 s."""
UNCOUNTED = 4
"""Rounds in which the store of Ray grows."""
PAUSE_S = 1.5
"""Before a transfer, as a step goes before it in a run: Ray gives the memory of objects back once a second."""
SETTINGS = ["prompt.image_size=448", "rollout.max_model_len=1024", "placement.reward.num_cpus=0", "learner.lr=1e-6"]


def main() -> int:
    """Measure, and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        model = Path(folder) / "model"
        write_model(model, SHAPES["layer"])
        figures = [*to_the_far_side(model), *reload(model), *adapter(model)]
    return publish("sync", figures, options.json, settings=SETTINGS)


class Receiver(RolloutActor):
    """A rollout actor without an engine: it verifies what arrives."""

    def __init__(self, *_: object) -> None:
        self.inbox = Inbox()

    def receive(self, bucket: WeightBucket) -> int:
        """Take a part of a version of the weights; returns the number of its bytes."""
        self.inbox.put(bucket)
        return bucket.nbytes


def to_the_far_side(model: Path) -> list[Figure]:
    """From one actor to another, against a copy within one process into memory that it already has."""
    connect()
    config = load_config("demo", SETTINGS)
    learner, receivers = RayLearner(config, model), RayRollouts(config, model, kind=Receiver)
    sizes = ray.get([receivers.actors[0].receive.remote(bucket) for bucket in learner.weights()])
    source = np.random.default_rng(0).integers(0, 255, sum(sizes), dtype=np.uint8)
    target = np.zeros_like(source)

    def sync() -> float:
        time.sleep(PAUSE_S)
        return seconds(lambda: receivers.update_weights(learner.weights()))

    measured = in_turns(
        {
            "sync": sync,
            "copy": lambda: seconds(lambda: np.copyto(target, source)),
        },
        ROUNDS,
    )
    ray.shutdown()
    transfers, copies = measured["sync"][UNCOUNTED:], measured["copy"][UNCOUNTED:]
    return [
        at_least("weights, MB", len(source) / 1e6, 200),
        Figure("buckets", len(sizes)),
        Figure("to the far side, seconds", float(np.median(transfers))),
        Figure("plain copy, seconds", float(np.median(copies))),
        *ratio_figures("to the far side / plain copy", transfers, copies, partial(at_most, limit=3)),
    ]


def reload(model: Path) -> list[Figure]:
    """The engine's own part, in one process."""
    config = load_config("demo", SETTINGS)
    engine, learner = make_engine(config, model), make_learner(config, model)
    rollouts = LocalRollouts(engine)
    taken = [seconds(lambda: rollouts.update_weights(learner.weights())) for _ in range(ROUNDS)][UNCOUNTED:]
    verified = [seconds(lambda: verify(learner.weights())) for _ in range(ROUNDS)][UNCOUNTED:]
    return [Figure("the engine's own reload, seconds", float(np.median(taken) - np.median(verified)))]


def verify(buckets: Iterable[WeightBucket]) -> None:
    """Check the checksum of every chunk."""
    for bucket in buckets:
        bucket.verify()


def adapter(model: Path) -> list[Figure]:
    """Bytes of an adapter against those of all weights."""
    lora = "model.lora={rank: 16, alpha: 32}"
    whole, part = (
        sum(bucket.nbytes for bucket in make_learner(load_config("demo", [*SETTINGS, *more]), model).weights())
        for more in ((), (lora,))
    )
    return [
        Figure("adapter of rank 16, MB", part / 1e6),
        at_most("adapter of rank 16 / all weights, bytes", part / whole, 0.06),
    ]


if __name__ == "__main__":
    sys.exit(main())
