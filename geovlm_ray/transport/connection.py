"""Authenticated connections between learner ranks and engines, over which they agree on a transfer."""

from __future__ import annotations

import hmac
import queue
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from geovlm_ray.core.errors import LostError

TOKEN_BYTES = 32
CONNECT_TIMEOUT_S = 60.0
"""Seconds for a connection to be made, and for its token to arrive."""


@dataclass(frozen=True)
class Endpoint:
    """Where an engine listens; ``token`` proves that a sender got the endpoint from the engine."""

    host: str
    port: int
    token: bytes = field(repr=False)
    devices: tuple[str, ...]
    """The devices of the engine's workers."""


class Peer:
    """One end of a connection: pickled messages, and the loss of the other end as an error."""

    def __init__(self, connection: Connection, name: str, timeout_s: float) -> None:
        self._connection = connection
        self._name = name
        self._timeout_s = timeout_s

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            LostError: the other end is gone.
        """
        try:
            self._connection.send(message)
        except OSError as error:
            raise LostError(f"{self._name} closed the connection: {error}") from error

    def receive(self) -> Any:
        """Wait for the next message.

        Raises:
            LostError: the other end is gone, or silent for the timeout.
        """
        try:
            if not self._connection.poll(self._timeout_s):
                raise LostError(f"{self._name} did not answer within {self._timeout_s:g} s")
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise LostError(f"{self._name} closed the connection") from error

    def close(self) -> None:
        """Close the connection; the other end notices."""
        self._connection.close()


class Listener:
    """Accepts the connections of senders that know the token, in a thread."""

    def __init__(self, host: str, devices: tuple[str, ...], timeout_s: float) -> None:
        self._socket = socket.create_server((host, 0))
        self._timeout_s = timeout_s
        self._accepted: queue.Queue[Peer] = queue.Queue()
        port = self._socket.getsockname()[1]
        self.endpoint = Endpoint(host, port, secrets.token_bytes(TOKEN_BYTES), devices)
        threading.Thread(target=self._accept, daemon=True).start()

    def accept(self) -> Peer:
        """The next sender that connected.

        Raises:
            LostError: none did within the timeout.
        """
        try:
            return self._accepted.get(timeout=self._timeout_s)
        except queue.Empty:
            raise LostError(f"the learner did not connect within {self._timeout_s:g} s") from None

    def _accept(self) -> None:
        while True:
            accepted, _ = self._socket.accept()
            threading.Thread(target=self._authenticate, args=(accepted,), daemon=True).start()

    def _authenticate(self, accepted: socket.socket) -> None:
        """Keep the connection if the token arrives first; nothing else is read from a stranger."""
        token, deadline = b"", time.monotonic() + CONNECT_TIMEOUT_S
        try:
            while len(token) < TOKEN_BYTES and (left := deadline - time.monotonic()) > 0:
                accepted.settimeout(left)
                part = accepted.recv(TOKEN_BYTES - len(token))
                if not part:
                    break
                token += part
        except OSError:
            pass
        if hmac.compare_digest(token, self.endpoint.token):
            self._accepted.put(Peer(_connection(accepted), "the learner", self._timeout_s))
        else:
            accepted.close()


def connect(endpoint: Endpoint, timeout_s: float) -> tuple[Peer, str]:
    """Connect to an engine; also returns the address of this machine that the engine sees.

    Raises:
        LostError: the engine is gone.
    """
    name = f"the engine at {endpoint.host}:{endpoint.port}"
    try:
        made = socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S)
        made.sendall(endpoint.token)
    except OSError as error:
        raise LostError(f"{name} cannot be reached: {error}") from error
    own_address = made.getsockname()[0]
    return Peer(_connection(made), name, timeout_s), own_address


def _connection(connected: socket.socket) -> Connection:
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Connection(connected.detach())
