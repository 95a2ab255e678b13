"""User-defined reward functions, run in a child process that can be killed.

``path/to/file.py:function`` names ``function(response, target)``, which returns the accuracy in [0, 1] or a
mapping with ``accuracy`` and further named components. ``response`` is the full response, ``target`` the record's JSON
value; ``id``, ``task``, ``question``, ``labels`` and ``frame`` are passed if the function has such parameters.
Environment variables that look like tokens, keys, secrets or passwords are not passed to the process.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.redaction import has_password, is_secret
from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig, is_function
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.targets import plain_frame, plain_target

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
MAX_REPLY_BYTES = 1 << 16
_CHILD = Path(__file__).with_name("isolated_child.py")


def score_by_user_function(
    name: str, responses: Sequence[str], examples: Sequence[Example], time_limit_s: float
) -> list[RewardResult]:
    """Score responses with a user function, ``path/file.py:function``.

    A call that exceeds ``time_limit_s`` is killed and gets status ``timeout``; one that raises, exits the
    process or does not return a number in [0, 1] gets status ``error``. Later calls run in a new process if needed.

    Raises:
        ConfigError: The function cannot be loaded.
    """
    function = isolated(name, time_limit_s)
    scored = [function.score(response, example) for response, example in zip(responses, examples, strict=True)]
    problems = [problem for _, problem in scored if problem]
    if problems:
        args = (name, len(problems), len(scored), problems[0])
        log.warning("%s: %d of %d responses have no score; first problem: %s", *args)
    return [result for result, _ in scored]


def check_function(config: RewardConfig, tasks: Iterable[str] = TASKS) -> None:
    """Load the user functions that score tasks, by default all tasks.

    Raises:
        ConfigError: A function cannot be loaded, or has other parameters than documented.
    """
    for form in filter(is_function, map(config.form, tasks)):
        isolated(form, config.time_limit_s).start()


@functools.cache
def isolated(name: str, time_limit_s: float) -> IsolatedFunction:
    """A user function; calls with the same name and time limit share one process."""
    return IsolatedFunction(name, time_limit_s)


class IsolatedFunction:
    """A function in a child process, started on the first call and restarted after it is killed."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name = name
        self.limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def score(self, response: str, example: Example) -> tuple[RewardResult, str | None]:
        """Score one response; returns the result and a description of the problem, if any."""
        context = {
            "id": example.id,
            "task": example.task,
            "question": example.question,
            "labels": list(example.labels),
            "frame": plain_frame(example.frame),
        }
        request = {"response": response, "target": plain_target(example.target), "context": context}
        with self._lock:
            try:
                self.start()
                assert self._socket is not None
                self._socket.settimeout(self.limit_s)
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                reply = self._receive(self.limit_s)
            except TimeoutError:
                self.close()
                return RewardResult(0.0, status="timeout"), f"no result within {self.limit_s:g} s"
            except (OSError, EOFError, ValueError):
                self.close()
                return RewardResult(0.0, status="error"), "the process died"
        problem = reply.get("problem") or _problem(reply.get("value"))
        return (RewardResult(0.0, status="error") if problem else _result(reply["value"])), problem

    def start(self) -> None:
        """Start the process if it is not running.

        Raises:
            ConfigError: The function cannot be loaded.
        """
        if self._process is not None:
            return
        path, _, function = self.name.rpartition(":")
        self._socket, child_socket = socket.socketpair()
        with child_socket:
            command = [sys.executable, "-P", str(_CHILD), path, function, str(self.limit_s), str(child_socket.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[child_socket.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not (is_secret(name) or has_password(value))},
            )
        try:
            problem = self._receive(START_LIMIT_S).get("problem")
        except TimeoutError:
            problem = f"not loaded within {START_LIMIT_S:g} s"
        except (OSError, EOFError, ValueError):
            problem = "the process died while loading it"
        if problem:
            self.close()
            raise ConfigError(f"reward function {self.name!r}: {problem}")

    def close(self) -> None:
        """Kill the process group of the child."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._socket = None

    def _receive(self, limit_s: float) -> dict[str, Any]:
        """Read one line from the child as a JSON object.

        Raises TimeoutError without a line within ``limit_s`` seconds, and OSError, EOFError or ValueError if the child
        died or the line is too long or not a JSON object.
        """
        assert self._socket is not None
        self._socket.settimeout(limit_s)
        line = b""
        while not line.endswith(b"\n"):
            chunk = self._socket.recv(MAX_REPLY_BYTES)
            line += chunk
            if not chunk or len(line) > MAX_REPLY_BYTES:
                raise EOFError
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise ValueError
        return reply


def _problem(value: Any) -> str | None:
    accuracy = value.get("accuracy") if isinstance(value, dict) else value
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        return f"expected a number in [0, 1], or a mapping with 'accuracy' in [0, 1], found {value!r:.100}"
    wrong = [name for name, part in value.items() if not _is_number(part)] if isinstance(value, dict) else []
    return f"expected numeric components, found {wrong[0]}={value[wrong[0]]!r:.100}" if wrong else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _result(value: Any) -> RewardResult:
    parts = value if isinstance(value, dict) else {"accuracy": value}
    return RewardResult(float(parts["accuracy"]), {name: float(part) for name, part in parts.items()})
