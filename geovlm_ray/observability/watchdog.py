"""Watchdog for hung steps: reports the state of driver and actors while the step still hangs."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.observability.heartbeat import HEARTBEAT, Heartbeat, read_heartbeats, silent

logger = logging.getLogger(__name__)

POLL_S = 1.0
KINDS_BY_PHASE = {
    "submit": ("rollout",),
    "parity": ("learner",),
    "rollout": ("rollout", "reward", "sbert"),
    "resample": ("rollout", "reward", "sbert"),
    "learner": ("learner",),
    "sync": ("learner", "rollout"),
    "checkpoint": ("learner",),
}
"""For each phase of the training loop, the kinds of actors that work in it."""


class Watchdog:
    """Thread that writes ``hang-step-NNNNNN.txt`` for every step longer than ``limit_s``; it does not stop the run."""

    def __init__(self, folder: Path, limit_s: float, heartbeat: Heartbeat = HEARTBEAT) -> None:
        self.folder = folder
        self.limit_s = limit_s
        self.heartbeat = heartbeat
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        reported = None
        while not self._stopping.wait(min(POLL_S, self.limit_s / 4)):
            began = self.heartbeat.step_began
            if began is not None and began != reported and time.time() - began > self.limit_s:
                reported = began
                self._report(time.time() - began)

    def _report(self, seconds: float) -> None:
        step = (self.heartbeat.step or 0) + 1
        file = self.folder / f"hang-step-{step:06d}.txt"
        summary = f"step {step} has taken {seconds:.0f} s, over run.step_limit_s={self.limit_s:g}; the run continues"
        heartbeats: list[dict[str, Any]] = []
        with suppress(OSError, DataError):
            heartbeats = [p for p in read_heartbeats(self.folder) if p["kind"] != "driver"]
        text = f"{summary}\n\n{describe_wait(self.heartbeat.snapshot(), heartbeats, time.time())}\n\n{stacks()}"
        try:
            write_atomically(file, text)
        except DataError as error:
            logger.warning("%s; %s", summary, error)
        else:
            logger.warning("%s; see %s", summary, file)


def describe_wait(driver: dict[str, Any], actors: Sequence[dict[str, Any]], now: float) -> str:
    """The driver's current phase, the state of every actor, and the actors that block the driver."""
    phase = driver["state"]
    doing = "in no phase of the loop" if phase == "idle" else f"waiting for {phase}"
    lines = [
        f"The driver is {doing}, {_since(driver['since'], now)}.",
        *(f"  {describe_actor(a, now)}" for a in actors),
    ]
    kinds = {kind for name in phase.split(" + ") for kind in KINDS_BY_PHASE.get(name, ())}
    blocking = [a for a in actors if a["kind"] in kinds and (silent(a, now) or a["state"] != "idle")]
    if not actors:
        lines.append("There are no actors: all components run in the driver process.")
    elif blocking:
        named = (f"{a['actor']} ({'silent' if silent(a, now) else a['state']})" for a in blocking)
        lines.append(f"Blocked by {', '.join(named)}.")
    else:
        lines.append("No actor involved in this phase is busy: look for the cause in the driver's stacks.")
    return "\n".join(lines)


def describe_actor(actor: dict[str, Any], now: float) -> str:
    """The state of an actor in one line."""
    state = f"{actor['state']}, {_since(actor['since'], actor['time'] if silent(actor, now) else now)}"
    if actor["queue"]:
        state += f", queue {actor['queue']}"
    if actor["weight_version"] is not None:
        state += f", weight version {actor['weight_version']}"
    if silent(actor, now):
        state = f"silent, {_since(actor['time'], now)}; before that {state}"
    return f"{actor['actor']} on {actor['host']}, process {actor['pid']}: {state}"


def stacks() -> str:
    """Stack traces of all threads of this process except the calling one, the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    others = frames.keys() - {threading.get_ident()}
    traces = [
        f"Thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frames[number]))}"
        for number in sorted(others, key=lambda n: (n != threading.main_thread().ident, n))
    ]
    return "Stacks of the driver's threads, innermost call last\n\n" + "\n".join(traces)


def _since(start: float, now: float) -> str:
    return f"since {datetime.fromtimestamp(start):%H:%M:%S} ({now - start:.0f} s)"
