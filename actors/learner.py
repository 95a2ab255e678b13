"""Learner actors: one learner, or several ranks that shard weights and batch."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.failures import fetch
from actors.options import hide_other_gpus
from actors.placement import Reservation
from actors.slots import ActorSlots
from actors.tracing import set_weight_version, start_monitoring, trace_call
from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.model.config import ModelConfig, check_attention
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.tasks.extensions import activate


class LearnerActor:
    """Hosts the learner, or one rank of it."""

    def address(self, model: ModelConfig) -> str:
        """Rendezvous address of the process group: this node's IP address and a free port.

        Raises:
            ConfigError: the package that ``model.attention`` needs is not installed on this node.
        """
        check_attention(model)
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        """Join the process group and load the model."""
        # Imported here and below so that actors with another kind of learner do not need torch.
        from geovlm_ray.learner.ranks import Ranks
        from geovlm_ray.training.local import make_learner

        hide_other_gpus()
        start_monitoring(config.run)
        activate(config)
        with trace_call("start"):
            self.learner = make_learner(config, model, Ranks.join(rank, size, address))
        set_weight_version(self.learner.version)

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt]) -> dict[str, float]:
        """One policy update."""
        with trace_call("step", len(groups)):
            metrics = self.learner.step(groups, upcoming)
        HEARTBEAT.count(metrics["learner/tokens"])
        set_weight_version(self.learner.version)
        return metrics

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """Why prompts cannot be encoded, keyed by group id."""
        with trace_call("encode", len(prompts)):
            return self.learner.problems(prompts)

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        with trace_call("logprobs", len(groups)):
            return self.learner.logprobs(groups)

    def weights(self, endpoints: Sequence[Any]) -> Iterator[Any]:
        """This rank's chunks of the current weights, for the engines at ``endpoints``."""
        self._send_error: Exception | None = None
        with trace_call("weights"):
            try:
                yield from self.learner.weights(endpoints)
            except Exception as error:
                self._send_error = error
                raise

    def check_sent(self) -> None:
        """Raise the error that ended the last call of `weights`, if any."""
        if self._send_error is not None:
            raise self._send_error

    def save(self, folder: Path) -> None:
        """Start writing model and optimizer state."""
        with trace_call("save"):
            self.learner.save(folder)

    def saved(self) -> bool:
        """Whether the last `save` is complete."""
        return self.learner.saved()

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        with trace_call("load"):
            self.learner.load(folder)
        set_weight_version(self.learner.version)


LEARNER = "the learner"
DEATH_DETECTION_S = 30.0
"""Seconds within which Ray detects that a rank died, after another rank failed because of it."""


class RayLearner:
    """The learner actors behind the interface of one learner.

    If a rank dies, its shard of weights and optimizer state is lost; from then on every call raises LostError.
    """

    def __init__(
        self,
        config: Config,
        model: Path,
        actor_class: type[LearnerActor] = LearnerActor,
        reservation: Reservation | None = None,
    ) -> None:
        size = config.placement.learner.actors
        self._slots = ActorSlots(config, "learner", size, actor_class, reservation=reservation)
        self.actors = self._slots.actors
        try:
            self._slots.ready(at_least=size)
        except LostError:
            self.close()
            raise
        address = fetch([actor.address.remote(config.model) for actor in self.actors], LEARNER)[0]
        self._started = [actor.start.remote(config, model, i, size, address) for i, actor in enumerate(self.actors)]

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """One policy update; the prompts of the next step are encoded meanwhile."""
        return self._call_all("step", ray.put(groups), upcoming)

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """Why prompts cannot be encoded by a rank, keyed by group id."""
        self._results(self._started)
        found = self._results([actor.problems.remote(prompts) for actor in self.actors])
        return {group_id: problem for problems in found for group_id, problem in problems.items()}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens."""
        return self._call_all("logprobs", ray.put(groups))

    def weights(self, endpoints: Sequence[Any]) -> Iterator[ray.ObjectRef]:
        """The current weights, chunk by chunk, as references into the object store; ``endpoints`` are the engines'."""
        self._results(self._started)
        # All ranks take part in gathering each weight, also those that yield no chunks.
        streams = [actor.weights.options(num_returns="streaming").remote(endpoints) for actor in self.actors]
        while streams:
            for stream in ray.wait(streams)[0]:
                try:
                    yield next(stream)
                except StopIteration:
                    streams.remove(stream)
        # If a rank died or failed, fail here: its chunks are unusable, and the engines that get them would be blamed.
        self._results([actor.check_sent.remote() for actor in self.actors])

    def save(self, folder: Path) -> None:
        """Start writing model and optimizer state into a folder that this process can access too.

        Raises:
            OSError: writing failed.
        """
        with _disk_errors():
            self._call_all("save", folder)

    def saved(self) -> bool:
        """Whether the last `save` is complete.

        Raises:
            OSError: writing failed.
        """
        with _disk_errors():
            return fetch([self.actors[0].saved.remote()], LEARNER)[0]

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        self._call_all("load", folder)

    def close(self) -> None:
        """Kill the actors, even if they are blocked."""
        self._slots.close()

    def _call_all(self, method: str, *arguments: Any) -> Any:
        """Call a method on all ranks; returns the result of rank 0."""
        self._results(self._started)
        return self._results([getattr(actor, method).remote(*arguments) for actor in self.actors])[0]

    def _results(self, calls: Sequence[ray.ObjectRef]) -> list[Any]:
        """Results of one call to every rank; fails with the first rank, since the others may be blocked by it."""
        waiting = list(calls)
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                fetch(done, LEARNER)
            except LostError:
                raise
            except RunError:
                # If a rank died, the others fail with a closed connection.
                self._raise_if_dead()
                raise
        return fetch(calls, LEARNER)

    def _raise_if_dead(self) -> None:
        pings = [actor.__ray_ready__.remote() for actor in self.actors]
        while pings:
            done, pings = ray.wait(pings, timeout=DEATH_DETECTION_S)
            fetch(done, LEARNER)
            if not done:
                return


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Re-raise an actor's OSError itself, so that the caller can name what was being written."""
    try:
        yield
    except RunError as error:
        cause = getattr(error.__cause__, "cause", None)
        if isinstance(cause, OSError):
            raise cause from error
        raise
