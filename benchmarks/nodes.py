"""A Ray cluster of several nodes on this machine, each with its own IP address, for tests with failing nodes.

Needs root, `ip` of iproute2, and `unshare`, `nsenter` and `setpriv` of util-linux. All nodes share the file system.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bridge import Bridge
from benchmarks.node import ISOLATED, RAY, Node, is_healthy, kill_process, wait_until

FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A dead node is detected within about 1 s, a disconnected one within 5 s (Ray's defaults: 14 and 64 s)."""
GCS_PORT, DASHBOARD_PORT, REDIS_PORT = 6379, 8265, 6380


def available(redis: bool = False) -> str | None:
    """Why such a cluster cannot be created on this machine; None if it can."""
    if os.geteuid() != 0:
        return "nodes with their own IP addresses need root"
    programs = ["ip", "unshare", "nsenter", "setpriv", *(["redis-server"] if redis else [])]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        return f"nodes with their own IP addresses need {', '.join(missing)} in PATH"
    links = "ip link add name gv0 type bridge && ip link add name gv1 type veth peer name gv2"
    trial = ["unshare", "--net", *ISOLATED, "--fork", "--mount-proc", "sh", "-c", links]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"root may not create network namespaces and bridges: {done.stderr.strip()}" if done.returncode else None


class Nodes:
    """A head and workers, as a context manager.

    With ``redis``, a restarted head recovers its state. With a ``token``, clients must authenticate with it.

    Raises:
        NodeError: on entry, the cluster does not start.
    """

    def __init__(
        self, workers: int = 0, head_cpus: int = 0, cpus: int = 2, *, redis: bool = False, token: str | None = None
    ) -> None:
        self.count, self.head_cpus, self.cpus, self.redis, self.token = workers, head_cpus, cpus, redis, token
        self.workers: list[Node] = []
        self._numbers = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Nodes:
        try:
            # Ray's socket paths have a length limit.
            self.folder = Path(tempfile.mkdtemp(prefix="gv-", dir="/tmp"))
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.bridge = Bridge()
            self._stack.callback(self.bridge.remove)
            self._settings = self._common_settings()
            self.head = self._make_head(self._start_redis() if self.redis else {})
            self.restart_head()
            self._bring_up(*[self._make_worker(self.cpus, {}) for _ in range(self.count)])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all nodes and commands, and remove the network and all files."""
        self._stack.close()

    @property
    def address(self) -> str:
        """Address of the head, for drivers on nodes."""
        return f"{self.head.address}:{GCS_PORT}"

    @property
    def dashboard(self) -> str:
        """URL for job submission, also reachable from this machine."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def environment(self, **more: str) -> dict[str, str]:
        """This process's environment plus the cluster's addresses, for drivers on a node and for job submission."""
        return {**self._settings, "RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.dashboard, **more}

    def add(self, cpus: int | None = None, resources: Mapping[str, float] | None = None) -> Node:
        """Add a worker, by default with as many CPUs as the others; returns when it is up.

        Raises:
            NodeError: it does not start; the message includes the end of its log.
        """
        node = self._make_worker(self.cpus if cpus is None else cpus, resources or {})
        self._bring_up(node)
        return node

    def kill(self, node: Node) -> None:
        """Kill all processes of a node; returns when they have ended.

        Raises:
            NodeError: the node is already dead.
        """
        node.kill()

    def disconnect(self, node: Node) -> None:
        """Drop all packets from and to a node; its processes keep running."""
        node.port.down()

    def reconnect(self, node: Node) -> None:
        """Let packets through again; the cluster does not readmit a node that it has declared dead."""
        node.port.up()

    def restart_head(self) -> None:
        """Restart the killed head at the same address; returns when it is up.

        Raises:
            NodeError: it does not start; the message includes the end of its log.
        """
        self._bring_up(self.head)
        assert self.head.process is not None
        health = f"{self.dashboard}/api/gcs_healthz"
        wait_until(lambda: is_healthy(health), "the dashboard", self.head.process, self.head.folder / "log")

    def command(self, node: Node | None, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a program on a node, in its root folder, or on this machine if ``node`` is None.

        The environment is `environment()` unless ``env`` is given. On a node, the program is killed with SIGKILL when
        the returned process ends.

        Raises:
            NodeError: the node is dead.
        """
        inside: list[str] = []
        if node:
            inside = ["nsenter", f"--target={node.init}", "--net", *ISOLATED, "--", "setpriv", "--pdeathsig=KILL"]
        process = subprocess.Popen([*inside, *argv], **{"env": self.environment(), **popen})
        self._stack.callback(kill_process, process)
        return process

    def _common_settings(self) -> dict[str, str]:
        """Environment variables of all nodes."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONDONTWRITEBYTECODE"}
        path = f"{Path(RAY).parent}:{os.environ['PATH']}"
        checkout = str(Path(__file__).parent.parent)
        settings = {
            **inherited,
            **FAST_HEALTH_CHECKS,
            "PATH": path,
            "PYTHONPATH": checkout,
            "RAY_AUTH_MODE": "disabled",
        }
        if self.token is not None:
            file = self.folder / "token"
            file.touch(mode=0o600)
            file.write_text(self.token)
            settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        return settings

    def _start_redis(self) -> dict[str, str]:
        """Start Redis on this machine; returns the environment variables for the head."""
        options = ["--bind", self.bridge.address, "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", ""]
        log = self.folder / "redis.log"
        with log.open("w") as output:
            process = subprocess.Popen(["redis-server", *options], stdout=output, stderr=output)
        self._stack.callback(kill_process, process)
        endpoint = (self.bridge.address, REDIS_PORT)
        wait_until(lambda: _accepts_connections(*endpoint), "redis-server", process, log)
        return {"RAY_REDIS_ADDRESS": "{}:{}".format(*endpoint), "RAY_external_storage_namespace": self.bridge.name}

    def _make_head(self, storage: Mapping[str, str]) -> Node:
        port = self.bridge.attach(2, "head")
        ports = [f"--port={GCS_PORT}", f"--dashboard-host={port.address}", f"--dashboard-port={DASHBOARD_PORT}"]
        options = ["--head", f"--num-cpus={self.head_cpus}", *ports]
        node = Node("head", port, self.folder / "head", options, {**self._settings, **storage})
        self._stack.callback(node.remove)
        return node

    def _make_worker(self, cpus: int, resources: Mapping[str, float]) -> Node:
        number = next(self._numbers)
        name = f"worker-{number}"
        options = [f"--address={self.address}", f"--num-cpus={cpus}", f"--resources={json.dumps(resources)}"]
        node = Node(name, self.bridge.attach(2 + number, name), self.folder / name, options, self._settings)
        self._stack.callback(node.remove)
        self.workers.append(node)
        return node

    def _bring_up(self, *nodes: Node) -> None:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait()


def _accepts_connections(host: str, port: int) -> bool:
    """Whether a server accepts TCP connections."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
