"""Direct transports: learner ranks move packed weights to vLLM's workers, by vLLM's transfer engines.

A rank connects to every engine that it serves, and to each through a channel of its own, so that the loss of one engine
does not concern the others. Over the connection it calls the methods of vLLM's workers in order (start, chunks, finish,
check); the data move beside it: by NCCL, CUDA IPC, Gloo or shared memory. Adapters take the way of the object store,
since vLLM loads them from files of the host.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.transport.base import CallWorkers, Transport, WeightUpdate, WorkerUpdate
from geovlm_ray.transport.connection import Endpoint, Listener, Peer, connect
from geovlm_ray.transport.object_store import ObjectStore

if TYPE_CHECKING:
    import torch
    from vllm.distributed.weight_transfer.packed_tensor import PackedChunk

log = logging.getLogger(__name__)

BUFFER_BYTES = 2**30
"""Size at which a chunk is closed; the device holds two chunks beside the weights."""
READY, DONE = "ready", "done"


class Channel(ABC):
    """The sender's end of the way by which chunks get to one engine."""

    @abstractmethod
    def open_message(self, host: str, workers: int) -> dict[str, Any]:
        """What the engine's workers need to open their ends; ``host`` is the address of the sender."""

    @abstractmethod
    def open(self) -> None:
        """Open the sender's end, while the workers open theirs."""

    @abstractmethod
    def describe(self, chunk: PackedChunk) -> dict[str, Any]:
        """Fields of the message about a chunk, in addition to its names, dtypes and shapes."""

    @abstractmethod
    def transmit(self, chunk: PackedChunk) -> None:
        """Move a chunk's bytes after the message about it."""

    @abstractmethod
    def close(self) -> None:
        """Release the sender's end, also in the middle of a transfer."""


@dataclass(frozen=True)
class Announcement:
    """Tells engines to receive a version from one rank of the learner; ``served`` are the tokens of its engines."""

    version: int
    rank: int
    ranks: int
    served: frozenset[bytes]


class _Skipped(NamedTuple):
    """How many ranks of the learner announced a version to other engines only."""

    version: int
    ranks: int


class _Link:
    """The connection of a rank to one engine, and its channel.

    Calls are answered in order; an engine that is lost is dropped, and the driver replaces it.
    """

    def __init__(self, endpoint: Endpoint, channel: Channel, timeout_s: float) -> None:
        self._peer, host = connect(endpoint, timeout_s)
        self._channel = channel
        self._workers = len(endpoint.devices)
        self._host = host
        self._opened = False
        self._pending: str | None = None
        self._chunk: PackedChunk | None = None

    def begin(self) -> None:
        """Wait until the engine is between two steps; begin a version."""
        self._answered(READY)
        if not self._opened:
            message = self._channel.open_message(self._host, self._workers)
            self._call("init_weight_transfer_engine", init_info=message)
            self._channel.open()
            self._opened = True
        self._call("start_weight_update")

    def push(self, chunk: PackedChunk) -> None:
        """Send a chunk after the engine has loaded the one before; its memory is kept until then."""
        self.wait()
        self._chunk = chunk
        info = {
            "names": chunk.names,
            "dtype_names": [str(dtype).removeprefix("torch.") for dtype in chunk.dtypes],
            "shapes": chunk.shapes,
            **self._channel.describe(chunk),
        }
        self._call("update_weights", update_info=info)
        self._channel.transmit(chunk)

    def finish(self, digests: dict[str, list[int]]) -> None:
        """End a version, and let the engine verify it."""
        self._call("finish_weight_update")
        self._call("check_digests", expected=digests)
        self._call(DONE)

    def wait(self) -> None:
        """Wait for the answer to the last call."""
        if self._pending is not None:
            self._answered(self._pending)
            self._pending = self._chunk = None

    def close(self) -> None:
        """Drop the engine."""
        self._peer.close()
        self._channel.close()

    def _call(self, method: str, **arguments: Any) -> None:
        self.wait()
        self._peer.send((method, arguments))
        self._pending = method

    def _answered(self, expected: str) -> None:
        found = self._peer.receive()
        if found != expected:
            raise LostError(f"an engine answered {found!r} instead of {expected!r}")


class DirectTransport(Transport):
    """Moves model weights from the learner's devices to those of the engines."""

    replayable = False
    channel: ClassVar[type[Channel]]

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._host_memory = ObjectStore(timeout_s)
        self._links: dict[bytes, _Link] = {}
        self._ranks: dict[bytes, int] = {}
        self._listener: Listener | None = None
        self._senders: dict[int, Peer] = {}
        self._skipped = _Skipped(-1, 0)

    def endpoint(self, host: str, devices: Sequence[str]) -> Endpoint:
        """Listen for the ranks of the learner."""
        self._listener = Listener(host, tuple(devices), self.timeout_s)
        return self._listener.endpoint

    def served(self, rank: int, ranks: int, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The engines that a rank serves; an engine stays with its rank while it lives.

        Every rank computes the same assignment, since all get the same endpoints at every version.
        """
        self._ranks = {e.token: self._ranks[e.token] for e in endpoints if e.token in self._ranks}
        for endpoint in endpoints:
            if endpoint.token not in self._ranks:
                counts = Counter(self._ranks.values())
                self._ranks[endpoint.token] = min(range(ranks), key=lambda r: counts[r])
        return [endpoint for endpoint in endpoints if self._ranks[endpoint.token] == rank]

    def send(self, update: WeightUpdate, rank: int, ranks: int, endpoints: Sequence[Endpoint]) -> Iterator[Any]:
        """Announce the version, then transfer it to the engines that this rank serves."""
        if update.adapter is not None:
            yield from self._host_memory.send(update, rank, ranks, endpoints)
            return
        from geovlm_ray.transport.digest import digest_values

        self._connect(self.served(rank, ranks, endpoints))
        yield Announcement(update.version, rank, ranks, frozenset(self._links))
        self._each(_Link.begin)
        digests: dict[str, torch.Tensor] = {}
        for chunk in _packed(_digested(update.tensors, digests)):
            self._each(_Link.push, chunk)
        self._each(_Link.finish, digest_values(digests))
        self._each(_Link.wait)

    def receive(self, chunk: Any) -> WeightUpdate | WorkerUpdate | None:
        """Accept an announcement, if it concerns this engine, or a bucket of an adapter.

        Raises:
            RunError: no rank of the learner serves this engine; or as in `ObjectStore.receive`.
        """
        if not isinstance(chunk, Announcement):
            return self._host_memory.receive(chunk)
        if self._listener is None:
            raise RunError("an announcement arrived before the engine's endpoint was asked for")
        if self._listener.endpoint.token not in chunk.served:
            before = self._skipped.ranks if self._skipped.version == chunk.version else 0
            self._skipped = _Skipped(chunk.version, before + 1)
            if self._skipped.ranks == chunk.ranks:
                devices = ", ".join(self._listener.endpoint.devices)
                raise RunError(f"none of the {chunk.ranks} learner ranks can send weights to this engine on {devices}")
            return None
        if chunk.rank not in self._senders:
            self._senders = {chunk.rank: self._listener.accept()}
        return WorkerUpdate(chunk.version, lambda call: self._load(self._senders[chunk.rank], call))

    def _load(self, sender: Peer, call: CallWorkers) -> None:
        """Call the workers as the sender says, until it is done.

        Raises:
            LostError: the sender is gone, or has dropped this engine.
            RunError: a worker failed, or found other weights than those that were sent.
        """
        try:
            sender.send(READY)
            while True:
                method, arguments = sender.receive()
                if method != DONE:
                    call(method, **arguments)
                sender.send(method)
                if method == DONE:
                    return
        except BaseException:
            sender.close()
            self._senders.clear()
            raise

    def _connect(self, served: Sequence[Endpoint]) -> None:
        """Connect to new engines, and drop those that are no longer served."""
        tokens = {endpoint.token for endpoint in served}
        for token in self._links.keys() - tokens:
            self._links.pop(token).close()
        for endpoint in served:
            if endpoint.token not in self._links:
                try:
                    self._links[endpoint.token] = _Link(endpoint, self.channel(), self.timeout_s)
                except LostError as error:
                    log.warning("%s", error)

    def _each(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a method of every link, and drop the engines that are lost."""
        for token, link in list(self._links.items()):
            try:
                action(link, *arguments)
            # Gloo and NCCL raise RuntimeError if the other end is gone.
            except (LostError, RuntimeError) as error:
                log.warning("weights did not reach an engine: %s", " ".join(str(error).split()))
                self._links.pop(token).close()


def _digested(
    tensors: Iterable[tuple[str, torch.Tensor]], digests: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors on, and keep their digests."""
    from geovlm_ray.transport.digest import tensor_digest

    for name, tensor in tensors:
        digests[name] = tensor_digest(tensor)
        yield name, tensor.detach()


def _packed(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[PackedChunk]:
    """Pack tensors into chunks on their device."""
    from vllm.distributed.weight_transfer.packed_tensor import pack_tensors

    while True:
        # vLLM warns of tensors that are larger than a chunk, and packs them.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            chunk = pack_tensors(tensors, lambda pair: pair[1], BUFFER_BYTES)
        if chunk is None:
            return
        yield chunk
