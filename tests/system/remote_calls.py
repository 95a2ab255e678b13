"""The sockets on which a process listens, and what they answer to remote calls of Ray's services."""

from __future__ import annotations

import grpc
import psutil

METHODS = (
    *("NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys"),
    *("NodeManagerService/GetNodeStats", "ObjectManagerService/Pull"),
    *("CoreWorkerService/GetCoreWorkerStats", "CoreWorkerService/PushTask", "ReporterService/GetTraceback"),
)
"""A method of every service of Ray that runs code or tells something."""


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process and its children listen."""
    process = psutil.Process(pid)
    pids = {pid, *(child.pid for child in process.children(recursive=True))}
    connections = [c for c in psutil.net_connections("tcp") if c.pid in pids and c.status == psutil.CONN_LISTEN]
    return {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in connections}


def call_all(address: tuple[str, int], token: str = "") -> set[str]:
    """The gRPC status of each method at an address, called with an empty message; ``OK`` if it was carried out."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    found = set()
    with grpc.insecure_channel("{}:{}".format(*address)) as channel:
        for method in METHODS:
            call = channel.unary_unary(f"/ray.rpc.{method}", lambda message: message, lambda message: message)
            try:
                call(b"", timeout=5, metadata=metadata)
                found.add("OK")
            except grpc.RpcError as error:
                found.add(error.code().name)
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    break  # No gRPC server.
    return found
