"""A node of a test cluster: Ray in its own namespaces, with its own IP address, killed as a unit."""

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
"""Seconds within which a program must be ready."""
ISOLATED = ("--pid", "--mount", "--uts", "--ipc")


@dataclass
class Node:
    """A node: its name, network port, folder, and options and environment of `ray start`."""

    name: str
    port: Port
    folder: Path
    options: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """IP address; ``node:ADDRESS`` is a Ray resource that only this node has."""
        return self.port.address

    @property
    def init(self) -> int:
        """PID, on this machine, of the node's init process; killing it kills all processes of the node.

        Raises:
            NodeError: the node is dead.
        """
        children = psutil.Process(self.process.pid).children() if self.process and self.process.poll() is None else []
        if not children:
            raise NodeError(f"{self.name} is dead")
        return children[0].pid

    def start(self) -> None:
        """Start the node; `wait` returns when it is ready."""
        self.folder.mkdir(exist_ok=True)
        namespaces = ["ip", "netns", "exec", self.port.name, "unshare", *ISOLATED, "--mount-proc", "--fork"]
        set_hostname = ["sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"', self.name]
        ray = [RAY, "start", "--block", "--disable-usage-stats", *self.options]
        node_options = [
            f"--node-ip-address={self.address}",
            f"--temp-dir={self.folder}",
            f"--object-store-memory={OBJECT_STORE}",
        ]
        command = [*namespaces, "--kill-child=SIGKILL", *set_hostname, *ray, *node_options]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until the node's agent reports that it is healthy.

        Raises:
            NodeError: it exited, or was not ready in time; the message includes the end of its log.
        """
        assert self.process is not None
        health = f"http://{self.address}:{AGENT_PORT}/api/local_raylet_healthz"
        wait_until(lambda: is_healthy(health), self.name, self.process, self.folder / "log")

    def kill(self) -> None:
        """Kill all processes with SIGKILL; returns when they have ended.

        Raises:
            NodeError: the node is already dead.
        """
        os.kill(self.init, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def remove(self) -> None:
        """Kill the node if it is alive, and remove it from the network."""
        if self.process:
            kill_process(self.process)
        self.port.remove()


def wait_until(ready: Callable[[], bool], name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a started program is ready.

    Raises:
        NodeError: it exited, or was not ready within `UP_S`; the message includes the end of its log.
    """
    deadline = time.monotonic() + UP_S
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            problem = f"exited with code {process.returncode}" if ended else f"was not ready within {UP_S} s"
            raise NodeError(f"{name} {problem}; end of its log:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def is_healthy(url: str) -> bool:
    """Whether a health endpoint returns status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def kill_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process if it is alive and wait for it; `unshare` and `setpriv` then kill what they started."""
    process.kill()
    process.wait()
