"""A Ray cluster of several nodes on this machine, each with an address of its own: they die, are cut off, come back.

Needs root, `ip` of iproute2, and `unshare`, `nsenter` and `setpriv` of util-linux. All nodes see this machine's files.
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
from benchmarks.node import ISOLATED, RAY, Node, answers, end, wait_until

FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A dead node is noticed within about 1 s, one that is cut off within 5 s; by default it takes 14 and 64 s."""
GCS_PORT, DASHBOARD_PORT, REDIS_PORT = 6379, 8265, 6380


def available(redis: bool = False) -> str | None:
    """Why such a cluster cannot be made here; None where it can."""
    if os.geteuid() != 0:
        return "nodes with addresses of their own need root"
    programs = ["ip", "unshare", "nsenter", "setpriv", *(["redis-server"] if redis else [])]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        return f"nodes with addresses of their own need {', '.join(missing)} in PATH"
    links = "ip link add name gv0 type bridge && ip link add name gv1 type veth peer name gv2"
    trial = ["unshare", "--net", *ISOLATED, "--fork", "--mount-proc", "sh", "-c", links]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"root may not make nodes with addresses of their own: {done.stderr.strip()}" if done.returncode else None


class Nodes:
    """A head and workers, as a context manager.

    With ``redis`` a head that starts again knows what it knew before. With a ``token`` the cluster answers nobody who
    does not show it.

    Raises:
        NodeError: on entry, the cluster does not come up.
    """

    def __init__(
        self, workers: int = 0, head_cpus: int = 0, cpus: int = 2, *, redis: bool = False, token: str | None = None
    ) -> None:
        self.count, self.head_cpus, self.cpus, self.redis, self.token = workers, head_cpus, cpus, redis, token
        self.workers: list[Node] = []
        self._numbers = itertools.count(1)
        self._made = ExitStack()

    def __enter__(self) -> Nodes:
        try:
            # Ray's socket paths may not be long.
            self.folder = Path(tempfile.mkdtemp(prefix="gv-", dir="/tmp"))
            self._made.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.bridge = Bridge()
            self._made.callback(self.bridge.remove)
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
        """End all nodes and commands, and remove all that was made."""
        self._made.close()

    @property
    def address(self) -> str:
        """The head's address, for drivers on nodes."""
        return f"{self.head.address}:{GCS_PORT}"

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted, from this machine too."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def environment(self, **more: str) -> dict[str, str]:
        """This process's environment, for drivers on a node and for a laptop that submits jobs."""
        return {**self._settings, "RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.dashboard, **more}

    def add(self, cpus: int | None = None, resources: Mapping[str, float] | None = None) -> Node:
        """Another worker, by default with as many CPUs as the others; returns when it is up.

        Raises:
            NodeError: it does not come up; the message holds the end of its log.
        """
        node = self._make_worker(self.cpus if cpus is None else cpus, resources or {})
        self._bring_up(node)
        return node

    def kill(self, node: Node) -> None:
        """End a node, all its processes at once; returns when they are gone.

        Raises:
            NodeError: it is dead already.
        """
        node.kill()

    def cut(self, node: Node) -> None:
        """Let no packet from or to a node through; what runs on it lives on."""
        node.port.down()

    def mend(self, node: Node) -> None:
        """Let packets through again; a cluster does not take back a node that it has given up."""
        node.port.up()

    def restart_head(self) -> None:
        """Start the head that was killed again, at the same address; returns when it is up.

        Raises:
            NodeError: it does not come up; the message holds the end of its log.
        """
        self._bring_up(self.head)
        assert self.head.process is not None
        health = f"{self.dashboard}/api/gcs_healthz"
        wait_until(lambda: answers(health), "the dashboard", self.head.process, self.head.folder / "log")

    def command(self, node: Node | None, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a program on a node, in its root folder, or with None on this machine: the laptop.

        The environment is `environment()` unless ``env`` is given. On a node, whatever ends the returned process ends
        the program with SIGKILL.

        Raises:
            NodeError: the node is dead.
        """
        inside: list[str] = []
        if node:
            inside = ["nsenter", f"--target={node.init}", "--net", *ISOLATED, "--", "setpriv", "--pdeathsig=KILL"]
        process = subprocess.Popen([*inside, *argv], **{"env": self.environment(), **popen})
        self._made.callback(end, process)
        return process

    def _common_settings(self) -> dict[str, str]:
        """What every node finds in its environment."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONDONTWRITEBYTECODE"}
        path = f"{Path(RAY).parent}:{os.environ['PATH']}"
        checkout = str(Path(__file__).parent.parent)
        settings = {**own, **FAST_HEALTH_CHECKS, "PATH": path, "PYTHONPATH": checkout, "RAY_AUTH_MODE": "disabled"}
        if self.token is not None:
            file = self.folder / "token"
            file.touch(mode=0o600)
            file.write_text(self.token)
            settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        return settings

    def _start_redis(self) -> dict[str, str]:
        """Start Redis beside the nodes; returns what the head has to find in its environment."""
        options = ["--bind", self.bridge.address, "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", ""]
        log = self.folder / "redis.log"
        with log.open("w") as output:
            process = subprocess.Popen(["redis-server", *options], stdout=output, stderr=output)
        self._made.callback(end, process)
        where = (self.bridge.address, REDIS_PORT)
        wait_until(lambda: _listens(*where), "redis-server", process, log)
        return {"RAY_REDIS_ADDRESS": "{}:{}".format(*where), "RAY_external_storage_namespace": self.bridge.name}

    def _make_head(self, storage: Mapping[str, str]) -> Node:
        port = self.bridge.attach(2, "head")
        ports = [f"--port={GCS_PORT}", f"--dashboard-host={port.address}", f"--dashboard-port={DASHBOARD_PORT}"]
        options = ["--head", f"--num-cpus={self.head_cpus}", *ports]
        node = Node("head", port, self.folder / "head", options, {**self._settings, **storage})
        self._made.callback(node.remove)
        return node

    def _make_worker(self, cpus: int, resources: Mapping[str, float]) -> Node:
        number = next(self._numbers)
        name = f"worker-{number}"
        options = [f"--address={self.address}", f"--num-cpus={cpus}", f"--resources={json.dumps(resources)}"]
        node = Node(name, self.bridge.attach(2 + number, name), self.folder / name, options, self._settings)
        self._made.callback(node.remove)
        self.workers.append(node)
        return node

    def _bring_up(self, *nodes: Node) -> None:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait()


def _listens(host: str, port: int) -> bool:
    """Whether a server takes connections."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
