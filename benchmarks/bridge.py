"""A virtual network on this machine: a bridge with a free subnet, and network namespaces attached to it."""

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
"""`ip netns exec NAME` mounts the files of the subfolder NAME over those of /etc."""


class NodeError(RuntimeError):
    """A node, or the network between nodes, failed."""


def call(*command: str) -> str:
    """Standard output of a command.

    Raises:
        NodeError: the command failed; the message includes its standard error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Port:
    """A network namespace with its IP address; its link on the bridge has the same name."""

    name: str
    address: str

    def up(self) -> None:
        """Let packets through."""
        call("ip", "link", "set", self.name, "up")

    def down(self) -> None:
        """Drop all packets from and to the namespace."""
        call("ip", "link", "set", self.name, "down")

    def remove(self) -> None:
        """Remove the link, the namespace and its hosts file, as far as they exist."""
        for kind in ("link", "netns"):
            with suppress(NodeError):
                call("ip", kind, "del", self.name)
        shutil.rmtree(HOSTS / self.name, ignore_errors=True)


class Bridge:
    """A bridge with a subnet 10.x.y.0/24, whose first address belongs to this machine.

    Its name encodes the subnet, so that two processes cannot use the same one.
    """

    def __init__(self) -> None:
        self.subnet = self._create()
        self.name = _name(self.subnet)
        self.address = str(self.subnet[1])
        try:
            call("ip", "address", "add", f"{self.address}/24", "dev", self.name)
            call("ip", "link", "set", self.name, "up")
        except NodeError:
            self.remove()
            raise

    def attach(self, number: int, host: str) -> Port:
        """A new namespace with address ``number`` (2 to 254) of the subnet, to which ``host`` resolves in it."""
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
        # Leads nowhere, but programs determine their own address from the route to a public one.
        call(*inside, "route", "add", "default", "dev", "eth0")

    def remove(self) -> None:
        """Remove the bridge."""
        call("ip", "link", "del", self.name)

    @staticmethod
    def _create() -> ipaddress.IPv4Network:
        """Create the bridge, with a subnet that no route of this machine overlaps."""
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
            except NodeError as failure:
                error = failure
        raise error


def _name(subnet: ipaddress.IPv4Network) -> str:
    """Name of a subnet's bridge; with ``-NUMBER`` appended it fits the kernel's limit of 15 characters."""
    return "gv{}-{}".format(*subnet.network_address.packed[1:3])
