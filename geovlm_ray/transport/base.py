"""The interface of a weight transport: how a weight version gets from the learner to the engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
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


class Transport(ABC):
    """One end of a transport: every rank of the learner has an instance that sends, every engine one that receives.

    The driver forwards each chunk to each of the ``engines`` unopened, in order, as soon as it is yielded. A chunk may
    contain tensors, or announce a transfer that sender and receivers then make among themselves.
    """

    replayable: ClassVar[bool]
    """Whether a replacement engine can receive the chunks of the current version again, after the other engines.

    If not, it is used from the next version on.
    """

    def __init__(self, engines: int) -> None:
        self.engines = engines

    @abstractmethod
    def send(self, update: WeightUpdate, rank: int) -> Iterator[Any]:
        """Yield the chunks of a version; called on every rank of the learner with the same tensors.

        Every rank consumes ``update.tensors`` completely and in order, because gathering them is collective. The next
        version is sent after all engines have acknowledged this one.
        """

    @abstractmethod
    def receive(self, chunk: Any) -> WeightUpdate | None:
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
