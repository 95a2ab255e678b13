"""What each process of a run is doing, written into the run directory every two seconds.

The driver and every actor process have one `Heartbeat`, `HEARTBEAT`. Its file says what the process is doing and since
when; a stale file means that the process is dead or hung.
"""

from __future__ import annotations

import itertools
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
from typing import Any, NamedTuple

import psutil

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.interfaces import Span

FOLDER = "actors"
PERIOD_S = 2.0
SILENT_S = 10.0
"""Age of a heartbeat in seconds from which on its process counts as silent."""
WINDOW_S = 60.0
"""Seconds over which idle share and rate are taken."""
SPANS = 256
"""Calls that are remembered; a step of the loop has about ten."""
UNITS = {"rollout": "tokens", "learner": "tokens", "driver": "tokens", "reward": "samples", "sbert": "texts"}

Wrote = Callable[[dict[str, Any]], None]
"""Is told what every heartbeat holds."""


class _Call(NamedTuple):
    name: str
    begun: float
    queue: int | None


class Heartbeat:
    """Keeps account of one process's calls and, between `start` and `stop`, writes it down; threads may share it.

    ``weight_version`` is the version of the weights that the process holds; ``step`` the number of steps that were done
    before the one it works for, which is the weight version where nothing else is known; ``step_began`` the time at
    which the loop began that step, None outside the loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._process = psutil.Process()
        self._reset()

    def _reset(self) -> None:
        self.weight_version: int | None = None
        self.step_began: float | None = None
        self.spans: deque[Span] = deque(maxlen=SPANS)
        self.wrote: Wrote | None = None
        self._step: int | None = None
        self._calls: dict[int, _Call] = {}
        self._counted = 0.0
        self._busy_s = 0.0
        self._changed = time.monotonic()
        self._idle_since = time.time()
        # (monotonic seconds, seconds busy, counted) of the heartbeats of the last WINDOW_S.
        self._history: deque[tuple[float, float, float]] = deque([(self._changed, 0.0, 0.0)])
        self._who: dict[str, Any] = {}

    @property
    def step(self) -> int | None:
        """The number of steps done before the one that the process works for; None where it does not know."""
        return self.weight_version if self._step is None else self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step

    def start(self, folder: Path, actor: str, run: str, wrote: Wrote | None = None) -> None:
        """Begin anew, as an actor of the run in a folder, and write from now on.

        What the disk refuses is tried again with the next heartbeat; nothing is written where there is no such folder.
        """
        self.stop()
        self._reset()
        self._file = folder / FOLDER / f"{actor}.json"
        self._who = {
            "actor": actor,
            "kind": kind(actor),
            "run": run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self.wrote = wrote
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(self._ended,), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, state: str = "ended") -> None:
        """Write a last heartbeat, with a state that stays, and no more."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        self._write({**self.snapshot(), "state": state, "since": time.time()})

    @contextmanager
    def busy(self, name: str, queue: int | None = None) -> Iterator[None]:
        """A call, with the number of prompts, groups or samples that it has in hand."""
        key = next(self._numbers)
        call = _Call(name, time.time(), queue)
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
        """So many tokens, samples or texts (`UNITS`) are done."""
        with self._lock:
            self._counted += n

    def steps(self, start: int, end: int) -> Iterator[int]:
        """The steps of a loop, each known to the heartbeat from its beginning to that of the next."""
        try:
            for step in range(start, end):
                self.step, self.step_began = step, time.time()
                yield step
            self.step = end
        finally:
            self.step_began = None

    def snapshot(self) -> dict[str, Any]:
        """What a heartbeat holds now.

        ``state`` is the calls under way, or ``idle``, and ``since`` when the first of them began; ``queue`` what they
        have in hand; ``rate`` counts of ``unit`` per second; ``idle`` a share in [0, 1]; ``memory_bytes`` is resident.
        """
        memory = self._process.memory_info().rss
        with self._lock:
            self._account()
            then, busy_s, counted = self._history[0]
            seconds = max(self._changed - then, 1e-9)
            calls = list(self._calls.values())
            queues = [call.queue for call in calls if call.queue is not None]
            return {
                **self._who,
                "time": time.time(),
                "state": " + ".join(call.name for call in calls) or "idle",
                "since": calls[0].begun if calls else self._idle_since,
                "weight_version": self.weight_version,
                "step": self.step,
                "queue": sum(queues) if queues else None,
                "rate": (self._counted - counted) / seconds,
                "unit": UNITS.get(self._who.get("kind", "")),
                "idle": min(max(1 - (self._busy_s - busy_s) / seconds, 0.0), 1.0),
                "memory_bytes": memory,
            }

    def _account(self) -> None:
        """Add the time since the last change to the busy one, if it was; the lock is held."""
        now = time.monotonic()
        if self._calls:
            self._busy_s += now - self._changed
        self._changed = now

    def _beat(self, ended: threading.Event) -> None:
        while True:
            self._write(self.snapshot())
            with self._lock:
                self._history.append((self._changed, self._busy_s, self._counted))
                while self._changed - self._history[0][0] > WINDOW_S:
                    self._history.popleft()
            if ended.wait(PERIOD_S):
                return

    def _write(self, reading: dict[str, Any]) -> None:
        with suppress(OSError, DataError):
            self._file.parent.mkdir(exist_ok=True)
            write_atomically(self._file, json.dumps(reading) + "\n")
        if self.wrote is not None:
            self.wrote(reading)


HEARTBEAT = Heartbeat()
"""That of this process."""


def kind(actor: str) -> str:
    """``rollout`` of ``rollout-3``."""
    return re.sub(r"-\d+$", "", actor)


def read_heartbeats(folder: Path) -> list[dict[str, Any]]:
    """The last heartbeat of every actor of the run in a folder: the driver first, then by kind and number.

    Raises:
        DataError: a file holds something else.
    """
    found = []
    for file in (folder / FOLDER).glob("*.json"):
        # An actor may be replaced, and its file go, at any time.
        with suppress(FileNotFoundError):
            found.append(read_object(file))
    return sorted(found, key=lambda p: (p["kind"] != "driver", p["kind"], len(p["actor"]), p["actor"]))


def silent(heartbeat: dict[str, Any], now: float) -> bool:
    """Whether a heartbeat is too old for its process to be well."""
    return now - heartbeat["time"] > SILENT_S


def remove_heartbeats(folder: Path, actor: str | None = None) -> None:
    """Remove the heartbeat of an actor that another one has replaced, or all that an earlier process of a run left."""
    for file in (folder / FOLDER).glob("*.json" if actor is None else f"{actor}.json"):
        with suppress(OSError):
            file.unlink()
