"""Where the processes of a group meet: their store listens on one address only."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

from torch.distributed import TCPStore

SOCKET_SETTINGS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def open_store(host: str, port: int, rank: int, size: int, timeout: timedelta) -> TCPStore:
    """The store through which ``size`` processes find each other; that of rank 0 listens on ``host`` alone.

    Connections of a group on the loopback interface stay there too.
    """
    if socket.gethostbyname(host).startswith("127."):
        for name in SOCKET_SETTINGS:
            os.environ.setdefault(name, "lo")
    if rank:
        return TCPStore(host, port, size, is_master=False, timeout=timeout)
    listening = socket.create_server((host, port))
    return TCPStore(host, port, size, is_master=True, timeout=timeout, master_listen_fd=listening.detach())
