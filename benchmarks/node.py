"""One node of a test cluster: Ray in namespaces of its own, so that it has an address and ends as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.bridge import NodeError, Port

RAY = str(Path(sys.executable).with_name("ray"))
AGENT_PORT = 52365
OBJECT_STORE = 256 * 2**20
"""Bytes of each node's object store."""
UP_S = 120
"""Seconds within which a program must be up."""
ISOLATED = ("--pid", "--mount", "--uts", "--ipc")


@dataclass
class Node:
    """A node: its name, its place in the network, the folder of its files, and what `ray start` is given."""

    name: str
    port: Port
    folder: Path
    options: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its address; ``node:ADDRESS`` is a resource of Ray that it alone has."""
        return self.port.address

    @property
    def init(self) -> int:
        """This machine's id of the node's first process, whose end is the end of all on the node.

        Raises:
            NodeError: the node is dead.
        """
        children = psutil.Process(self.process.pid).children() if self.process and self.process.poll() is None else []
        if not children:
            raise NodeError(f"{self.name} is dead")
        return children[0].pid

    def start(self) -> None:
        """Start its processes; `wait` waits for them."""
        self.folder.mkdir(exist_ok=True)
        apart = ["ip", "netns", "exec", self.port.name, "unshare", *ISOLATED, "--mount-proc", "--fork"]
        named = ["sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"', self.name]
        ray = [RAY, "start", "--block", "--disable-usage-stats", *self.options]
        own = [
            f"--node-ip-address={self.address}",
            f"--temp-dir={self.folder}",
            f"--object-store-memory={OBJECT_STORE}",
        ]
        command = [*apart, "--kill-child=SIGKILL", *named, *ray, *own]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until its agent says that it is up.

        Raises:
            NodeError: it ended, or was not up in time; the message holds the end of its log.
        """
        assert self.process is not None
        health = f"http://{self.address}:{AGENT_PORT}/api/local_raylet_healthz"
        wait_until(lambda: answers(health), self.name, self.process, self.folder / "log")

    def kill(self) -> None:
        """End all its processes at once with SIGKILL; returns when they are gone.

        Raises:
            NodeError: it is dead already.
        """
        os.kill(self.init, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def remove(self) -> None:
        """End it if it lives, and take it out of the network."""
        if self.process:
            end(self.process)
        self.port.remove()


def wait_until(up: Callable[[], bool], name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a program that was started is up.

    Raises:
        NodeError: it ended, or was not up within `UP_S`; the message holds the end of its log.
    """
    deadline = time.monotonic() + UP_S
    while not up():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = f"ended with {process.returncode}" if ended else f"was not up within {UP_S} s"
            raise NodeError(f"{name} {what}; the end of its log:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether a server answers that all is well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process, if it lives, and with `unshare` or `setpriv` what is in its namespaces; wait for its end."""
    process.kill()
    process.wait()
