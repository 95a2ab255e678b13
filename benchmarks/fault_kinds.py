"""The faults that `benchmarks.faults` injects, as they occur on real clusters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.node import Node
from benchmarks.nodes import Nodes

NEW_NODE_S = 3.0
"""Seconds until a dead node is replaced."""
CUT_S = 20.0
"""Seconds that a node has no network."""
LOOP_S = 8.0
"""Seconds during which a reward function does not return."""
NOTICED_S = 60.0
"""Seconds within which a run writes to its disk."""
GRACE_S = 120.0
"""Seconds within which a run that is asked to end has saved its work and ended."""
LOOPING = "looping"
"""Flag file in the folder of runs: while it exists, the reward function does not return."""


class FaultTarget:
    """A cluster, the driver process of a run on it, and the folder of its runs."""

    def __init__(self, nodes: Nodes, redis: bool, runs: Path, start: Callable[[Node], subprocess.Popen[bytes]]) -> None:
        self.nodes = nodes
        self.redis = redis
        self.runs = runs
        self._start = start
        self.home = nodes.workers[0]
        self.driver = start(self.home)
        self.problems: list[str] = []

    def restart_driver(self) -> None:
        """Start the run's command again, as a user or a job manager would."""
        self.driver = self._start(self.home)

    def actors(self, kind: str) -> list[psutil.Process]:
        """Processes of the actors of a class, oldest first."""
        processes = []
        for node in (self.nodes.head, *self.nodes.workers):
            if node.process is not None and node.process.poll() is None:
                for child in psutil.Process(node.process.pid).children(recursive=True):
                    if _is_actor(child, kind):
                        processes.append(child)
        return sorted(processes, key=lambda p: p.create_time())

    def other_node(self) -> Node:
        """The node without the driver."""
        return next(n for n in reversed(self.nodes.workers) if n is not self.home)


def _is_actor(process: psutil.Process, kind: str) -> bool:
    try:
        return any(kind in part and part.startswith("ray::") for part in process.cmdline()[:1])
    except psutil.Error:
        return False


def _signal_actor(target: FaultTarget, kind: str, number: int = signal.SIGKILL) -> None:
    for process in target.actors(kind)[:1]:
        process.send_signal(number)


def rollout(target: FaultTarget) -> None:
    """A rollout actor is killed."""
    _signal_actor(target, "RolloutActor")


def reward(target: FaultTarget) -> None:
    """A reward actor is killed."""
    _signal_actor(target, "RewardActor")


def sbert(target: FaultTarget) -> None:
    """The SBERT actor is killed."""
    _signal_actor(target, "SbertActor")


def learner(target: FaultTarget) -> None:
    """A learner rank is killed."""
    _signal_actor(target, "LearnerActor")


def stalled_engine(target: FaultTarget) -> None:
    """An engine stops responding: its process is stopped, its connections stay open."""
    _signal_actor(target, "RolloutActor", signal.SIGSTOP)


def looping_reward(target: FaultTarget) -> None:
    """A user-defined reward function does not return for a while."""
    flag = target.runs / LOOPING
    flag.touch()
    time.sleep(LOOP_S)
    flag.unlink()


def driver(target: FaultTarget) -> None:
    """The driver is killed and restarted."""
    target.driver.kill()
    target.driver.wait()
    target.restart_driver()


def sigterm(target: FaultTarget) -> None:
    """The driver gets SIGTERM, as from `ray job stop` or a preempted node, ends in order, and is started again."""
    _end_driver(target, signal.SIGTERM)


def interrupt(target: FaultTarget) -> None:
    """The driver gets SIGINT, as from Ctrl-C, ends in order, and is started again."""
    _end_driver(target, signal.SIGINT)


def _end_driver(target: FaultTarget, number: int) -> None:
    target.driver.send_signal(number)
    try:
        code = target.driver.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        target.driver.kill()
        code = target.driver.wait()
    if code != 128 + number:
        target.problems.append(f"signal {number} ended the driver with exit code {code}, not {128 + number}")
    target.restart_driver()


def _lose_node(target: FaultTarget, fault: Callable[[Node], None]) -> Node:
    """Apply a fault to the node without the driver, and replace the node."""
    victim = target.other_node()
    fault(victim)
    target.nodes.workers.remove(victim)
    time.sleep(NEW_NODE_S)
    target.nodes.add()
    return victim


def node(target: FaultTarget) -> None:
    """A worker node dies with all objects in its store, and is replaced."""
    _lose_node(target, target.nodes.kill)


def cut_off(target: FaultTarget) -> None:
    """A worker node loses its network without dying, is replaced, and then gets its network back."""
    victim = _lose_node(target, target.nodes.disconnect)
    time.sleep(CUT_S)
    target.nodes.reconnect(victim)


def head(target: FaultTarget) -> None:
    """The head dies and is restarted; without Redis it has lost all state of the run."""
    target.nodes.kill(target.nodes.head)
    time.sleep(1.0)
    target.nodes.restart_head()


def full_disk(target: FaultTarget) -> None:
    """The disk of the run is full until the run ends."""
    end = time.monotonic() + NOTICED_S
    with (target.runs / "filler").open("wb") as file:
        while target.driver.poll() is None and time.monotonic() < end:
            # Space that the run frees meanwhile is filled as well.
            size = os.fstat(file.fileno()).st_size + shutil.disk_usage(target.runs).free
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            time.sleep(0.2)


def free_disk(target: FaultTarget) -> None:
    """Free the disk again."""
    (target.runs / "filler").unlink(missing_ok=True)


MAY_END = {full_disk, head}
"""Faults that may end a run: a full disk, and the loss of a head without Redis."""
EVERYWHERE = (rollout, reward, learner, driver, sigterm, interrupt, node, cut_off, stalled_engine, head)
"""Faults that are possible in every run."""
