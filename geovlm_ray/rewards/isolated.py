"""A user's reward function, run in a process of its own that can be killed.

``reward: path/to/file.py:function`` names ``function(response, target)``, which returns the accuracy in [0, 1], or a
mapping with ``accuracy`` and further named parts. ``response`` is the whole response, ``target`` is as in the record's
JSON; the parameters ``id``, ``task``, ``question``, ``labels``, ``frame`` are passed to a function that names them. The
process does not get environment variables that are named after a token, key, secret or password.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.redaction import has_password, is_secret
from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.targets import plain_frame, plain_target

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
LONGEST_REPLY = 1 << 16
_CHILD = Path(__file__).with_name("isolated_child.py")


def judge_by_user(responses: Sequence[str], examples: Sequence[Example], config: RewardConfig) -> list[RewardResult]:
    """What the function of a configuration gives each response.

    A call that outlives ``config.time_limit_s`` is killed and has status ``timeout``; one that raises, ends its
    process or returns no number in [0, 1] has status ``error``. The others go on, in a new process.

    Raises:
        ConfigError: the function cannot be loaded.
    """
    function = isolated(config)
    judged, problems = [], []
    for response, example in zip(responses, examples, strict=True):
        one, problem = function.judge(response, example)
        judged.append(one)
        problems += [problem] if problem else []
    if problems:
        shown = (function.name, len(problems), len(judged), problems[0])
        log.warning("%s: %d of %d responses have no score; the first: %s", *shown)
    return judged


def check_function(config: RewardConfig) -> None:
    """Load the function of a configuration, if it names one.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if config.function:
        isolated(config).start()


def isolated(config: RewardConfig) -> IsolatedFunction:
    """The function of a configuration; one process serves all calls with the same one."""
    assert config.function
    return _isolated(config.function, config.time_limit_s)


class IsolatedFunction:
    """A function in a child process, started when it is first called and again after it had to be killed."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name = name
        self.limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def judge(self, response: str, example: Example) -> tuple[RewardResult, str | None]:
        """The score of one response, and what went wrong where there is none."""
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
                reply = self._exchange(request)
            except TimeoutError:
                self.close()
                return RewardResult(0.0, status="timeout"), f"no answer within {self.limit_s:g} s"
            except (OSError, EOFError, ValueError):
                self.close()
                return RewardResult(0.0, status="error"), "its process died"
        problem = reply.get("problem") or _problem(reply.get("value"))
        return (RewardResult(0.0, status="error") if problem else _judged(reply["value"])), problem

    def start(self) -> None:
        """Start the process, if there is none.

        Raises:
            ConfigError: the function cannot be loaded.
        """
        if self._process is not None:
            return
        path, _, function = self.name.rpartition(":")
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", str(_CHILD), path, function, str(self.limit_s), str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not (is_secret(name) or has_password(value))},
            )
        try:
            problem = self._receive(START_LIMIT_S).get("problem")
        except TimeoutError:
            problem = f"not loaded within {START_LIMIT_S:g} s"
        except (OSError, EOFError, ValueError):
            problem = "its process died while it was loaded"
        if problem:
            self.close()
            raise ConfigError(f"reward.function {self.name!r}: {problem}")

    def close(self) -> None:
        """End the process and all that it started."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                log.debug("%s had ended by itself", self.name)
            self._process.wait()
        self._process = self._socket = None

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self.start()
        assert self._socket is not None
        self._socket.settimeout(self.limit_s)
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        return self._receive(self.limit_s)

    def _receive(self, limit_s: float) -> dict[str, Any]:
        """One line of the child as an object.

        Raises:
            TimeoutError: it does not come in time.
            OSError, EOFError, ValueError: the child has died or written something else.
        """
        assert self._socket is not None
        self._socket.settimeout(limit_s)
        line = b""
        while not line.endswith(b"\n"):
            part = self._socket.recv(LONGEST_REPLY)
            line += part
            if not part or len(line) > LONGEST_REPLY:
                raise EOFError
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise ValueError
        return reply


@functools.lru_cache(maxsize=8)
def _isolated(name: str, limit_s: float) -> IsolatedFunction:
    return IsolatedFunction(name, limit_s)


def _problem(value: Any) -> str | None:
    accuracy = value.get("accuracy") if isinstance(value, dict) else value
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        return f"expected a number in [0, 1], or a mapping with such an 'accuracy', found {value!r:.100}"
    wrong = [name for name, part in value.items() if not _is_number(part)] if isinstance(value, dict) else []
    return f"expected numbers as parts, found {wrong[0]}={value[wrong[0]]!r:.100}" if wrong else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _judged(value: Any) -> RewardResult:
    parts = value if isinstance(value, dict) else {"accuracy": value}
    return RewardResult(float(parts["accuracy"]), {name: float(part) for name, part in parts.items()})
