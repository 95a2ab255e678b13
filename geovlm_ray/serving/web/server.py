"""HTTP server of the web page, with limits on connections and on the time that a client may take."""

from __future__ import annotations

import asyncio

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
HEADER_SECONDS = 10.0
BODY_SECONDS = 120.0
WRITE_SECONDS = 60.0
"""Time for a client that does not read its answer."""
_ERROR = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LimitedProtocol(H11Protocol):
    """A connection that is closed if the head or the body of a request, or reading the answer, takes too long."""

    _state: object = None
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection above `MAX_CONNECTIONS`."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._close(b"503 Service Unavailable")
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the limits."""
        self.resume_writing()
        self._set_deadline(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle data; the first data after a request has been received may begin the next one."""
        super().data_received(data)
        self._limit_time()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._limit_time()

    def pause_writing(self) -> None:
        """Limit the time in which the client reads."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End the limit of `pause_writing`."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
        super().resume_writing()

    def _limit_time(self) -> None:
        """Set a limit if the client has begun to send another part of a request."""
        if self.conn.their_state is not self._state:
            self._state = self.conn.their_state
            self._set_deadline({h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS}.get(self._state))

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._close, b"408 Request Timeout")

    def _close(self, status: bytes) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_ERROR % status)
        self.transport.close()


def make_server(app: FastAPI) -> uvicorn.Server:
    """The server of an app."""
    settings = uvicorn.Config(
        app, http=LimitedProtocol, ws="none", lifespan="off", log_level="warning", server_header=False, use_colors=False
    )
    return uvicorn.Server(settings)
