"""A network of its own on this machine: a bridge with a free subnet, and network namespaces that hang on it."""

from __future__ import annotations

import ipaddress
import json
import random
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOSTS = Path("/etc/netns")
"""`ip netns exec` shows the files of a folder here, named as the namespace, in place of those of /etc."""


class NodeError(RuntimeError):
    """A node, or the network between nodes, does not come up."""


def call(*command: str) -> str:
    """What a command prints.

    Raises:
        NodeError: it fails; the message is its own.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Port:
    """A network namespace, its address, and its link at the bridge's side; all three have the same name."""

    name: str
    address: str

    def up(self) -> None:
        """Let packets through."""
        call("ip", "link", "set", self.name, "up")

    def down(self) -> None:
        """Drop all packets from and to the namespace."""
        call("ip", "link", "set", self.name, "down")

    def remove(self) -> None:
        """Remove link, namespace and its hosts file, so far as they were made."""
        for kind in ("link", "netns"):
            with suppress(NodeError):
                call("ip", kind, "del", self.name)
        shutil.rmtree(HOSTS / self.name, ignore_errors=True)


class Bridge:
    """A bridge; this machine has the first address of its subnet, 10.x.y.0/24.

    Its name tells the subnet, so that two processes cannot take the same one.
    """

    def __init__(self) -> None:
        self.subnet = self._make()
        self.name = _name(self.subnet)
        self.address = str(self.subnet[1])
        try:
            call("ip", "address", "add", f"{self.address}/24", "dev", self.name)
            call("ip", "link", "set", self.name, "up")
        except NodeError:
            self.remove()
            raise

    def attach(self, number: int, host: str) -> Port:
        """A new namespace with the subnet's address of a number (2 to 254), which is what a host name means in it."""
        port = Port(f"{self.name}-{number}", str(self.subnet[number]))
        try:
            self._connect(port, host)
        except (NodeError, OSError):
            port.remove()
            raise
        return port

    def _connect(self, port: Port, host: str) -> None:
        hosts = HOSTS / port.name / "hosts"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f"127.0.0.1 localhost\n{port.address} {host}\n")
        call("ip", "netns", "add", port.name)
        call("ip", "link", "add", port.name, "type", "veth", "peer", "name", "eth0", "netns", port.name)
        call("ip", "link", "set", port.name, "master", self.name, "up")
        inside = ("ip", "-netns", port.name)
        call(*inside, "address", "add", f"{port.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            call(*inside, "link", "set", device, "up")
        # Leads nowhere, but programs find their own address by asking for the way to a public one.
        call(*inside, "route", "add", "default", "dev", "eth0")

    def remove(self) -> None:
        """Remove the bridge."""
        call("ip", "link", "del", self.name)

    @staticmethod
    def _make() -> ipaddress.IPv4Network:
        """Make the bridge of a subnet that no route of this machine leads to."""
        routes = json.loads(call("ip", "-json", "-4", "route", "show", "table", "all"))
        used = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
        error = NodeError("no free subnet 10.x.y.0/24")
        for number in random.sample(range(2**16), 64):
            subnet = ipaddress.IPv4Network(((10 << 24) + (number << 8), 24))
            if any(subnet.overlaps(other) for other in used):
                continue
            try:
                call("ip", "link", "add", _name(subnet), "type", "bridge")
                return subnet
            except NodeError as found:
                error = found
        raise error


def _name(subnet: ipaddress.IPv4Network) -> str:
    """The name of a subnet's bridge; with a number behind it, it is no longer than the kernel's 15 characters."""
    return "gv{}-{}".format(*subnet.network_address.packed[1:3])
