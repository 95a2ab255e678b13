"""The faults that `benchmarks.faults` injects, each as a user's cluster may meet it."""

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
"""Seconds until another node comes in place of one that died."""
CUT_S = 20.0
"""Seconds that a node is cut off."""
LOOP_S = 8.0
"""Seconds during which a reward function does not return."""
NOTICED_S = 60.0
"""Seconds within which a run has something to write."""
LOOPING = "looping"
"""File in a run's folder of trials: while it is there, the reward function does not return."""


class Scene:
    """A cluster, the process that drives a run on it, and where that run writes."""

    def __init__(self, nodes: Nodes, redis: bool, runs: Path, start: Callable[[Node], subprocess.Popen[bytes]]) -> None:
        self.nodes = nodes
        self.redis = redis
        self.runs = runs
        self._start = start
        self.home = nodes.workers[0]
        self.driver = start(self.home)

    def restart_driver(self) -> None:
        """Start the run's command again, as a user would, or whoever looks after jobs."""
        self.driver = self._start(self.home)

    def actors(self, kind: str) -> list[psutil.Process]:
        """Processes of the actors of a kind, the youngest last."""
        found = []
        for node in (self.nodes.head, *self.nodes.workers):
            if node.process is not None and node.process.poll() is None:
                for child in psutil.Process(node.process.pid).children(recursive=True):
                    if _is(child, kind):
                        found.append(child)
        return sorted(found, key=lambda p: p.create_time())

    def other_node(self) -> Node:
        """The node without the driver."""
        return next(n for n in reversed(self.nodes.workers) if n is not self.home)


def _is(process: psutil.Process, kind: str) -> bool:
    try:
        return any(kind in part and part.startswith("ray::") for part in process.cmdline()[:1])
    except psutil.Error:
        return False


def _signal(scene: Scene, kind: str, number: int = signal.SIGKILL) -> None:
    for process in scene.actors(kind)[:1]:
        process.send_signal(number)


def rollout(scene: Scene) -> None:
    """A rollout actor is killed."""
    _signal(scene, "RolloutActor")


def reward(scene: Scene) -> None:
    """A reward actor is killed."""
    _signal(scene, "RewardActor")


def sbert(scene: Scene) -> None:
    """The SBERT actor is killed."""
    _signal(scene, "SbertActor")


def learner(scene: Scene) -> None:
    """A learner rank is killed."""
    _signal(scene, "LearnerActor")


def stalled_engine(scene: Scene) -> None:
    """An engine stops answering: its process is stopped, and its connections stay open."""
    _signal(scene, "RolloutActor", signal.SIGSTOP)


def looping_reward(scene: Scene) -> None:
    """A user's reward function does not return for a while."""
    flag = scene.runs / LOOPING
    flag.touch()
    time.sleep(LOOP_S)
    flag.unlink()


def driver(scene: Scene) -> None:
    """The driver is killed and started again."""
    scene.driver.kill()
    scene.driver.wait()
    scene.restart_driver()


def _lose_node(scene: Scene, how: Callable[[Node], None]) -> Node:
    """Lose the node without the driver, for which another one comes."""
    victim = scene.other_node()
    how(victim)
    scene.nodes.workers.remove(victim)
    time.sleep(NEW_NODE_S)
    scene.nodes.add()
    return victim


def node(scene: Scene) -> None:
    """A worker node dies with all objects in its store, and another one comes."""
    _lose_node(scene, scene.nodes.kill)


def cut_off(scene: Scene) -> None:
    """A worker node is cut off without dying, another one comes, and the cable is mended."""
    victim = _lose_node(scene, scene.nodes.cut)
    time.sleep(CUT_S)
    scene.nodes.mend(victim)


def head(scene: Scene) -> None:
    """The head dies and is started again; without Redis it then knows nothing of the run."""
    scene.nodes.kill(scene.nodes.head)
    time.sleep(1.0)
    scene.nodes.restart_head()


def full_disk(scene: Scene) -> None:
    """The disk of the run is full, until that ends the run."""
    end = time.monotonic() + NOTICED_S
    with (scene.runs / "filler").open("wb") as file:
        while scene.driver.poll() is None and time.monotonic() < end:
            # Whatever the run removes meanwhile is taken as well.
            size = os.fstat(file.fileno()).st_size + shutil.disk_usage(scene.runs).free
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            time.sleep(0.2)


def mend_disk(scene: Scene) -> None:
    """Make room again."""
    (scene.runs / "filler").unlink(missing_ok=True)


MAY_END = {full_disk, head}
"""Faults that may end a run: a full disk, and a head without Redis."""
EVERYWHERE = (rollout, reward, learner, driver, node, cut_off, stalled_engine, head)
"""Those that any run may meet."""
