"""Weight sync to a rollout actor, including checksums, against a plain copy of the same bytes.

``python -m benchmarks.sync [--json OUT]`` (about 4 minutes). The weights of one decoder layer of the 3B's size and a
small vision tower (350 MB in fp32) are sent from the learner actor through Ray's object store to another actor, which
verifies them: the path of the training loop up to the point where an engine loads them. Then to an engine that loads
them, by every transport that needs no GPU. Also reported: the engine's reload of the same weights in one process, and
the size of a LoRA adapter of rank 16 on all linear layers of the language model.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
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
from geovlm_ray.transport.object_store import ObjectStore, WeightBucket

ROUNDS = 14
"""More than in other benchmarks, since a transfer takes less than 0.1 s."""
UNCOUNTED = 4
"""Warm-up rounds, in which Ray's object store grows."""
PAUSE_S = 1.5
"""Pause before each transfer, as long as a training step: Ray frees the memory of objects once per second."""
TRANSPORTS_ON_CPU = ("object_store", "gloo", "shared_memory")
SETTINGS = ["prompt.image_size=448", "rollout.max_model_len=1024", "placement.reward.num_cpus=0", "learner.lr=1e-6"]


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        model = Path(folder) / "model"
        write_model(model, SHAPES["small" if options.smoke else "layer"])
        rounds, uncounted = (2, 1) if options.smoke else (ROUNDS, UNCOUNTED)
        figures = [
            *transfer(model, rounds, uncounted),
            *loaded(model, rounds, uncounted),
            *reload(model, rounds, uncounted),
            *adapter(model),
        ]
    return publish("sync", figures, options, settings=SETTINGS)


class Receiver(RolloutActor):
    """A rollout actor without an engine, which only verifies the received weights."""

    def __init__(self, *_: object) -> None:
        self.transport = ObjectStore(timeout_s=60)

    def receive(self, bucket: WeightBucket) -> int:
        """Receive and verify a bucket; returns its size in bytes."""
        self.transport.receive(bucket)
        return bucket.nbytes


def transfer(model: Path, rounds: int, uncounted: int) -> list[Figure]:
    """Transfer from one actor to another, against a copy in one process into allocated memory."""
    connect()
    config = load_config("demo", [*SETTINGS, f"run.dir={model.parent}"])
    learner, receivers = RayLearner(config, model), RayRollouts(config, model, actor_class=Receiver)
    sizes = ray.get([receivers.actors[0].receive.remote(bucket) for bucket in learner.weights([])])
    source = np.random.default_rng(0).integers(0, 255, sum(sizes), dtype=np.uint8)
    target = np.zeros_like(source)

    measured = in_turns(
        {
            "sync": sync_once(receivers, learner),
            "copy": lambda: seconds(lambda: np.copyto(target, source)),
        },
        rounds,
    )
    ray.shutdown()
    transfers, copies = measured["sync"][uncounted:], measured["copy"][uncounted:]
    return [
        at_least("weights, MB", len(source) / 1e6, 200),
        Figure("buckets", len(sizes)),
        Figure("to the far side, seconds", float(np.median(transfers))),
        Figure("plain copy, seconds", float(np.median(copies))),
        *ratio_figures("to the far side / plain copy", transfers, copies, partial(at_most, limit=3)),
    ]


def loaded(model: Path, rounds: int, uncounted: int) -> list[Figure]:
    """From the learner actor until an engine in another actor has loaded and acknowledged the weights."""
    connect()
    syncs = {}
    for name in TRANSPORTS_ON_CPU:
        settings = [f"sync.transport={name}", "placement.rollout.num_cpus=0", "placement.learner.num_cpus=0"]
        config = load_config("demo", [*SETTINGS, *settings, f"run.dir={model.parent}", f"run.name={name}"])
        syncs[name] = sync_once(RayRollouts(config, model), RayLearner(config, model))
    measured = {name: values[uncounted:] for name, values in in_turns(syncs, rounds).items()}
    ray.shutdown()
    return [
        *(Figure(f"into an engine by {name}, seconds", float(np.median(values))) for name, values in measured.items()),
        *(
            figure
            for name in TRANSPORTS_ON_CPU[1:]
            for figure in ratio_figures(f"by {name} / by object_store", measured[name], measured["object_store"])
        ),
    ]


def sync_once(rollouts: RayRollouts, learner: RayLearner) -> Callable[[], float]:
    """A function that sends the weights once and returns the seconds."""

    def sync() -> float:
        time.sleep(PAUSE_S)
        return seconds(lambda: rollouts.update_weights(learner.weights))

    return sync


def reload(model: Path, rounds: int, uncounted: int) -> list[Figure]:
    """The engine's reload of the weights, in one process, without the time for the checksums."""
    config = load_config("demo", SETTINGS)
    engine, learner = make_engine(config, model), make_learner(config, model)
    rollouts = LocalRollouts(engine)
    updates = [seconds(lambda: rollouts.update_weights(learner.weights)) for _ in range(rounds)][uncounted:]
    checksums = [seconds(lambda: verify(learner.weights([]))) for _ in range(rounds)][uncounted:]
    return [Figure("the engine's own reload, seconds", float(np.median(updates) - np.median(checksums)))]


def verify(buckets: Iterable[WeightBucket]) -> None:
    """Verify the checksum of every bucket."""
    for bucket in buckets:
        bucket.verify()


def adapter(model: Path) -> list[Figure]:
    """Size of an adapter compared with all weights."""
    lora = "model.lora={rank: 16, alpha: 32}"
    all_weights, adapter_only = (
        sum(bucket.nbytes for bucket in make_learner(load_config("demo", [*SETTINGS, *more]), model).weights([]))
        for more in ((), (lora,))
    )
    return [
        Figure("adapter of rank 16, MB", adapter_only / 1e6),
        at_most("adapter of rank 16 / all weights, bytes", adapter_only / all_weights, 0.06),
    ]


if __name__ == "__main__":
    sys.exit(main())
