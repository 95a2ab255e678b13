"""Steps that hang: who waits for whom, written down while it can still be seen."""

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
ASKED = {
    "submit": ("rollout",),
    "parity": ("learner",),
    "rollout": ("rollout", "reward", "sbert"),
    "resample": ("rollout", "reward", "sbert"),
    "learner": ("learner",),
    "sync": ("learner", "rollout"),
    "checkpoint": ("learner",),
}
"""The kinds of actors that do the parts of the loop."""


class Watchdog:
    """A thread that writes ``hang-step-NNNNNN.txt`` for each step that takes longer than a limit; the run goes on."""

    def __init__(self, folder: Path, limit_s: float, heartbeat: Heartbeat = HEARTBEAT) -> None:
        self.folder = folder
        self.limit_s = limit_s
        self.heartbeat = heartbeat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        told = None
        while not self._ended.wait(min(POLL_S, self.limit_s / 4)):
            began = self.heartbeat.step_began
            if began is not None and began != told and time.time() - began > self.limit_s:
                told = began
                self._tell(time.time() - began)

    def _tell(self, seconds: float) -> None:
        step = (self.heartbeat.step or 0) + 1
        file = self.folder / f"hang-step-{step:06d}.txt"
        said = f"step {step} has taken {seconds:.0f} s, longer than run.step_limit_s={self.limit_s:g}; the run goes on"
        heartbeats: list[dict[str, Any]] = []
        with suppress(OSError, DataError):
            heartbeats = [p for p in read_heartbeats(self.folder) if p["kind"] != "driver"]
        text = f"{said}\n\n{who_waits(self.heartbeat.snapshot(), heartbeats, time.time())}\n\n{stacks()}"
        try:
            write_atomically(file, text)
        except DataError as error:
            logger.warning("%s; %s", said, error)
        else:
            logger.warning("%s; who waits for whom stands in %s", said, file)


def who_waits(driver: dict[str, Any], actors: Sequence[dict[str, Any]], now: float) -> str:
    """What the driver waits for, what each actor does, and which of them the wait is for, in plain words."""
    part = driver["state"]
    if part == "idle":
        lines = [f"The driver waits for none of its parts, {_since(driver['since'], now)}."]
    else:
        lines = [f"The driver waits for {part}, {_since(driver['since'], now)}."]
    lines += [f"  {describe(actor, now)}" for actor in actors]
    kinds = {kind for name in part.split(" + ") for kind in ASKED.get(name, ())}
    held_up = [a for a in actors if a["kind"] in kinds and (silent(a, now) or a["state"] != "idle")]
    if not actors:
        lines.append("There are no actors: all is done in the driver's process.")
    elif held_up:
        lines.append(f"So the driver waits for {', '.join(_word(actor, now) for actor in held_up)}.")
    else:
        lines.append("No actor that has a part in this is busy: look for the cause in the driver's stacks.")
    return "\n".join(lines)


def describe(actor: dict[str, Any], now: float) -> str:
    """What an actor does, in one line."""
    doing = f"{actor['state']}, {_since(actor['since'], actor['time'] if silent(actor, now) else now)}"
    if actor["queue"]:
        doing += f", {actor['queue']} in hand"
    if actor["weight_version"] is not None:
        doing += f", weights of version {actor['weight_version']}"
    if silent(actor, now):
        doing = f"silent, {_since(actor['time'], now)}; before that {doing}"
    return f"{actor['actor']} on {actor['host']}, process {actor['pid']}: {doing}"


def stacks() -> str:
    """The stacks of all threads of this process but the one that asks, the main thread's first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    others = frames.keys() - {threading.get_ident()}
    parts = [
        f"Thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frames[number]))}"
        for number in sorted(others, key=lambda n: (n != threading.main_thread().ident, n))
    ]
    return "Stacks of the driver's threads, the innermost call last\n\n" + "\n".join(parts)


def _word(actor: dict[str, Any], now: float) -> str:
    return f"{actor['actor']} ({'silent' if silent(actor, now) else actor['state']})"


def _since(moment: float, now: float) -> str:
    return f"since {datetime.fromtimestamp(moment):%H:%M:%S} ({now - moment:.0f} s)"
