"""The interface of a weight transport: how a weight version gets from the learner to the engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from geovlm_ray.core.errors import RunError, UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class WeightUpdate:
    """One weight version.

    ``tensors`` can be consumed once. ``adapter`` is None for full or merged model weights under their Hugging Face
    names, or the PEFT configuration of the LoRA adapter.
    """

    version: int
    tensors: Iterable[tuple[str, torch.Tensor]]
    adapter: Mapping[str, Any] | None = None


CallWorkers = Callable[..., list[Any]]
"""Calls a method of the engine's vLLM workers by its name and keyword arguments; returns the workers' results."""


@dataclass(frozen=True)
class WorkerUpdate:
    """One version of full or merged model weights that the engine's vLLM workers receive themselves.

    ``load`` is called between two engine steps and returns once the workers have loaded and verified the version.
    """

    version: int
    load: Callable[[CallWorkers], None]


class Transport(ABC):
    """One end of a transport: every rank of the learner has an instance that sends, every engine one that receives.

    The driver forwards each chunk to each engine unopened, in order, as soon as it is yielded. A chunk may contain
    tensors, or announce a transfer that sender and receivers then make among themselves. A peer that does not answer
    for ``timeout_s`` counts as lost.
    """

    replayable: ClassVar[bool]
    """Whether a replacement engine can receive the chunks of the current version again, after the other engines.

    If not, it is used from the next version on.
    """
    vllm_backend: ClassVar[str | None] = None
    """Name of the weight transfer engine that vLLM's workers need, if any."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    def endpoint(self, host: str, devices: Sequence[str]) -> Any:
        """What senders need to reach this engine, whose node is ``host`` and whose workers are on ``devices``."""
        return None

    @abstractmethod
    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Any]) -> Iterator[Any]:
        """Yield the chunks of a version; called on each of the learner's ``ranks`` with the same tensors.

        ``endpoints`` are those of the engines that get the chunks. Every rank consumes ``update.tensors`` completely
        and in order, because gathering them is collective. The next version is sent after all engines have
        acknowledged this one.
        """

    @abstractmethod
    def receive(self, chunk: Any) -> WeightUpdate | WorkerUpdate | None:
        """Accept a chunk; returns its version once all of it has arrived and is verified, else None.

        An engine may call it from several threads.

        Raises:
            RunError: the chunk is corrupt, or belongs to an older version than the current one.
        """


@contextmanager
def transport_errors(transport: Transport, action: str) -> Iterator[None]:
    """Turn what a transport raises while it does something into a RunError that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunError(f"sync.transport: {type(transport).__name__} failed to {action}: {found}") from error
