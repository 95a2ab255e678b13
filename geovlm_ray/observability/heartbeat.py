"""Heartbeats: the state of every process of a run, written to the run directory every two seconds.

The driver and every actor process have one `Heartbeat`, `HEARTBEAT`. Its file holds the current calls and when they
began; a stale file means that the process is dead or hung.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.interfaces import Span
from geovlm_ray.core.validation import validated

FOLDER = "actors"
PERIOD_S = 2.0
SILENT_S = 10.0
"""Age of a heartbeat in seconds above which its process counts as silent."""
WINDOW_S = 60.0
"""Sliding window in seconds for idle fraction and rate."""
SPANS = 256
"""Completed calls that are kept for traces; a training step has about ten."""
UNITS = {"rollout": "tokens", "learner": "tokens", "driver": "tokens", "reward": "samples", "sbert": "texts"}


Time = Annotated[float, Field(ge=0, le=1e11)]
"""Seconds since the epoch."""


class _Content(BaseModel):
    """The keys of a heartbeat that its readers use."""

    model_config = ConfigDict(extra="allow")

    actor: str
    kind: str
    state: str
    time: Time
    since: Time
    weight_version: int | None
    queue: int | None
    rate: FiniteFloat
    unit: str | None
    idle: FiniteFloat
    memory_bytes: int


class _Call(NamedTuple):
    name: str
    begun: float
    queue: int | None


class Heartbeat:
    """Tracks the calls of one process and, between `start` and `stop`, writes its state periodically; thread-safe.

    ``weight_version`` is the version of the weights that the process holds. ``step`` is the number of completed steps
    before the current one, by default the weight version. ``step_began`` is the time in seconds since the epoch at
    which the loop began the current step, None outside the loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._process = psutil.Process()
        self._reset()

    def _reset(self) -> None:
        self.weight_version: int | None = None
        self.step_began: float | None = None
        self.spans: deque[Span] = deque(maxlen=SPANS)
        self.on_write: Callable[[dict[str, Any]], None] | None = None
        self._step: int | None = None
        self._calls: dict[object, _Call] = {}
        self._count = 0.0
        self._busy_s = 0.0
        self._updated = time.monotonic()
        self._idle_since = time.time()
        # (monotonic seconds, busy seconds, count) at the heartbeats of the last WINDOW_S.
        self._history: deque[tuple[float, float, float]] = deque([(self._updated, 0.0, 0.0)])
        self._identity: dict[str, Any] = {}

    @property
    def step(self) -> int | None:
        """The number of completed steps before the current one; None if unknown."""
        return self.weight_version if self._step is None else self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step

    def start(
        self, folder: Path, actor: str, run: str, on_write: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """Reset the state and start writing heartbeats as ``actor`` into the run directory ``folder``.

        Write errors, such as a missing run directory, are ignored; the next heartbeat tries again. ``on_write`` gets
        the content of every heartbeat.
        """
        self.stop()
        self._reset()
        self._file = folder / FOLDER / f"{actor}.json"
        host, pid = socket.gethostname(), os.getpid()
        self._identity = {"actor": actor, "kind": kind(actor), "run": run, "host": host, "pid": pid}
        self.on_write = on_write
        self._stopping.clear()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, state: str = "ended") -> None:
        """Write a last heartbeat with a final state, and stop."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None
        self._write({**self.snapshot(), "state": state, "since": time.time()})

    @contextmanager
    def busy(self, name: str, queue: int | None = None) -> Iterator[None]:
        """Track a call for its duration; ``queue`` is the number of prompts, groups or samples it processes."""
        key, call = object(), _Call(name, time.time(), queue)
        with self._lock:
            self._account()
            self._calls[key] = call
        try:
            yield
        finally:
            ended = time.time()
            with self._lock:
                self._account()
                self._calls.pop(key, None)
                self._idle_since = ended
                self.spans.append(Span(name, call.begun, ended))

    def count(self, n: float) -> None:
        """Count ``n`` processed tokens, samples or texts (see `UNITS`)."""
        with self._lock:
            self._count += n

    def steps(self, start: int, end: int) -> Iterator[int]:
        """Iterate over the steps of the training loop and track the current one."""
        try:
            for step in range(start, end):
                self.step, self.step_began = step, time.time()
                yield step
            self.step = end
        finally:
            self.step_began = None

    def snapshot(self) -> dict[str, Any]:
        """The content of a heartbeat now.

        ``state``: the running calls joined by ``+``, or ``idle``; ``since``: when the first of them began; ``queue``:
        the sum of their queues; ``rate``: counts of ``unit`` per second; ``idle``: fraction of time in [0, 1];
        ``memory_bytes``: resident memory.
        """
        memory = self._process.memory_info().rss
        with self._lock:
            self._account()
            window_start, busy_s, count = self._history[0]
            seconds = max(self._updated - window_start, 1e-9)
            calls = list(self._calls.values())
            queues = [call.queue for call in calls if call.queue is not None]
            return {
                **self._identity,
                "time": time.time(),
                "state": " + ".join(call.name for call in calls) or "idle",
                "since": calls[0].begun if calls else self._idle_since,
                "weight_version": self.weight_version,
                "step": self.step,
                "queue": sum(queues) if queues else None,
                "rate": (self._count - count) / seconds,
                "unit": UNITS.get(self._identity.get("kind", "")),
                "idle": min(max(1 - (self._busy_s - busy_s) / seconds, 0.0), 1.0),
                "memory_bytes": memory,
            }

    def _account(self) -> None:
        """Add the time since the last update to the busy time if a call was running; requires the lock."""
        now = time.monotonic()
        if self._calls:
            self._busy_s += now - self._updated
        self._updated = now

    def _beat(self) -> None:
        while True:
            self._write(self.snapshot())
            with self._lock:
                self._history.append((self._updated, self._busy_s, self._count))
                while self._updated - self._history[0][0] > WINDOW_S:
                    self._history.popleft()
            if self._stopping.wait(PERIOD_S):
                return

    def _write(self, heartbeat: dict[str, Any]) -> None:
        with suppress(OSError, DataError):
            self._file.parent.mkdir(exist_ok=True)
            write_atomically(self._file, json.dumps(heartbeat) + "\n", durable=False)
        if self.on_write is not None:
            self.on_write(heartbeat)


HEARTBEAT = Heartbeat()
"""The heartbeat of this process."""


def kind(actor: str) -> str:
    """The kind of an actor: ``rollout`` for ``rollout-3``."""
    return re.sub(r"-\d+$", "", actor)


def read_heartbeats(folder: Path) -> list[dict[str, Any]]:
    """The last heartbeat of every process of a run: the driver first, then sorted by kind and number.

    Raises:
        DataError: a file is not a heartbeat.
    """
    heartbeats = []
    for file in (folder / FOLDER).glob("*.json"):
        # The file of a replaced actor may be removed at any time.
        with suppress(FileNotFoundError):
            heartbeats.append(validated(TypeAdapter(_Content), read_object(file), file).model_dump())
    return sorted(heartbeats, key=lambda p: (p["kind"] != "driver", p["kind"], len(p["actor"]), p["actor"]))


def silent(heartbeat: dict[str, Any], now: float) -> bool:
    """Whether a heartbeat is older than `SILENT_S`: its process is dead or hung."""
    return now - heartbeat["time"] > SILENT_S


def remove_heartbeats(folder: Path, actor: str | None = None) -> None:
    """Remove the heartbeat file of a replaced actor, or by default those of all actors."""
    for file in (folder / FOLDER).glob("*.json" if actor is None else f"{actor}.json"):
        with suppress(OSError):
            file.unlink()
