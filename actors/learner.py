"""The learner as actors: one, or several that share the weights and the batch."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from actors.failures import fetch
from actors.names import next_name
from actors.options import actor_options, not_started, start_limit_s
from actors.tracing import set_weight_version, start_monitoring, trace_call
from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.model.config import ModelConfig, check_attention
from geovlm_ray.observability.heartbeat import HEARTBEAT

if TYPE_CHECKING:
    from geovlm_ray.transport.buckets import WeightBucket


class LearnerActor:
    """One learner, or one rank of it."""

    def address(self, model: ModelConfig) -> str:
        """Where the other ranks can meet this one: its node's address, and a port that was free.

        Raises:
            ConfigError: this node lacks the package of ``model.attention``.
        """
        check_attention(model)
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        """Meet the other ranks and load the model."""
        # Here and below, so that an actor with a learner of another kind needs no torch.
        from geovlm_ray.learner.ranks import Ranks
        from geovlm_ray.training.local import make_learner

        start_monitoring(config.run)
        with trace_call("start"):
            self.learner = make_learner(config, model, Ranks.join(rank, size, address))
        set_weight_version(self.learner.version)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        with trace_call("step", len(groups)):
            metrics = self.learner.step(groups)
        HEARTBEAT.count(metrics["learner/tokens"])
        set_weight_version(self.learner.version)
        return metrics

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        with trace_call("logprobs", len(groups)):
            return self.learner.logprobs(groups)

    def weights(self) -> Iterator[WeightBucket]:
        """The present weights, a part at a time."""
        from geovlm_ray.transport.buckets import prefetch_buckets

        with trace_call("weights"):
            yield from prefetch_buckets(self.learner.weights())

    def save(self, folder: Path) -> None:
        """Begin to write model and optimizer."""
        with trace_call("save"):
            self.learner.save(folder)

    def saved(self) -> bool:
        """Whether that is done."""
        return self.learner.saved()

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        with trace_call("load"):
            self.learner.load(folder)
        set_weight_version(self.learner.version)


WHO = "the learner"
DEATH_KNOWN_S = 30.0
"""Seconds in which it becomes known that a rank died, after another one complained of it."""


class RayLearner:
    """The learner actors as the loop sees them: as one learner.

    Where one of them dies, what it held of weights and optimizer is lost, and with it this learner: every call raises
    LostError.
    """

    def __init__(self, config: Config, model: Path, kind: type[LearnerActor] = LearnerActor) -> None:
        size = config.placement.learner.actors
        self.actors = [
            ray.remote(kind).options(**actor_options(config, "learner", next_name("learner"))).remote()
            for _ in range(size)
        ]
        addresses = [actor.address.remote(config.model) for actor in self.actors]
        if ray.wait(addresses, num_returns=size, timeout=start_limit_s(config))[1]:
            self.close()
            raise not_started(config, "not every learner actor has started")
        address = fetch(addresses, WHO)[0]
        self._started = [actor.start.remote(config, model, i, size, address) for i, actor in enumerate(self.actors)]

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update."""
        return self._all("step", ray.put(groups))

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return self._all("logprobs", ray.put(groups))

    def weights(self) -> Iterator[ray.ObjectRef]:
        """The present weights, a part at a time left in the object store for the engines to read."""
        self._results(self._started)
        # All ranks give what they hold of each weight; the first one has the whole, and sends it.
        for parts in [actor.weights.options(num_returns="streaming").remote() for actor in self.actors]:
            yield from parts
        # The parts of one that died on the way are no weights, and the engines should not be blamed for that.
        self._results([actor.__ray_ready__.remote() for actor in self.actors])

    def save(self, folder: Path) -> None:
        """Begin to write model and optimizer into a folder that this process sees too.

        Raises:
            OSError: the disk refused it.
        """
        with _disk_errors():
            self._all("save", folder)

    def saved(self) -> bool:
        """Whether that is done.

        Raises:
            OSError: the disk refused it.
        """
        with _disk_errors():
            return fetch([self.actors[0].saved.remote()], WHO)[0]

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        self._all("load", folder)

    def close(self) -> None:
        """End the actors, whatever they are waiting for."""
        for actor in self.actors:
            ray.kill(actor)

    def _all(self, method: str, argument: Any) -> Any:
        """What the first rank returns of a call that all make together."""
        self._results(self._started)
        return self._results([getattr(actor, method).remote(argument) for actor in self.actors])[0]

    def _results(self, calls: Sequence[ray.ObjectRef]) -> list[Any]:
        """The results of one call to every rank; does not wait for those that wait for a dead one."""
        waiting = list(calls)
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                fetch(done, WHO)
            except LostError:
                raise
            except RunError:
                # Of a dead rank the others say that it closed its connection.
                self._raise_if_dead()
                raise
        return fetch(calls, WHO)

    def _raise_if_dead(self) -> None:
        pings = [actor.__ray_ready__.remote() for actor in self.actors]
        while pings:
            done, pings = ray.wait(pings, timeout=DEATH_KNOWN_S)
            fetch(done, WHO)
            if not done:
                return


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise an actor's OSError as it is: whoever wanted something written knows what."""
    try:
        yield
    except RunError as error:
        cause = getattr(error.__cause__, "cause", None)
        if isinstance(cause, OSError):
            raise cause from error
        raise
