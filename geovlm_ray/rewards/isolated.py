"""User-defined reward functions, run in a process that can be killed with all that it started.

``path/to/file.py:function`` names ``function(response, target)``, which returns the accuracy in [0, 1] or a
mapping with ``accuracy`` and further named components. ``response`` is the full response, ``target`` the record's JSON
value; ``id``, ``task``, ``question``, ``labels`` and ``frame`` are passed if the function has such parameters.
Of the environment, the process has the variables that `ENVIRONMENT` and ``reward.environment`` name.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig, is_function
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.targets import plain_frame, plain_target

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
KILL_LIMIT_S = 10.0
MAX_REPLY_BYTES = 1 << 16
MAX_NAME_CHARS = 100
ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "TZ"),
    *("TMPDIR", "XDG_CACHE_HOME", "PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"),
    *("PYTHONUNBUFFERED", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_HOME", "NLTK_DATA"),
)
"""Names of the environment variables that a user function sees, beside those of ``reward.environment``."""
_CHILD = Path(__file__).with_name("isolated_child.py")


def score_by_user_function(
    name: str, responses: Sequence[str], examples: Sequence[Example], config: RewardConfig
) -> list[RewardResult]:
    """Score responses with a user function, ``path/file.py:function``.

    A call that exceeds ``config.time_limit_s`` is killed and gets status ``timeout``; one that raises, runs out of
    memory, exits the process or does not return a number in [0, 1] gets status ``error``. Later calls run in a new
    process if needed.

    Raises:
        ConfigError: The function cannot be loaded.
    """
    function = isolated(name, config)
    scored = [function.score(response, example) for response, example in zip(responses, examples, strict=True)]
    problems = [problem for _, problem in scored if problem]
    if problems:
        args = (name, len(problems), len(scored), problems[0])
        log.warning("%s: %d of %d responses have no score; first problem: %s", *args)
    return [result for result, _ in scored]


def check_function(config: RewardConfig, tasks: Iterable[str] = TASKS) -> None:
    """Load the user functions that score tasks, by default all tasks.

    Raises:
        ConfigError: A function cannot be loaded, or has another form than documented.
    """
    for form in filter(is_function, map(config.form, tasks)):
        isolated(form, config).start()


def isolated(name: str, config: RewardConfig) -> IsolatedFunction:
    """A user function; calls with the same name and limits share one process."""
    return _isolated(name, config.time_limit_s, config.memory_limit_gb, config.environment)


@functools.cache
def _isolated(name: str, limit_s: float, memory_gb: float, environment: tuple[str, ...]) -> IsolatedFunction:
    return IsolatedFunction(name, limit_s, memory_gb, environment)


class IsolatedFunction:
    """A function in a child process, started on the first call and restarted after it is killed."""

    def __init__(self, name: str, limit_s: float, memory_gb: float, environment: tuple[str, ...] = ()) -> None:
        self.name = name
        self.limit_s = limit_s
        self.memory_gb = memory_gb
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._calls = 0

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
            if not self._is_idle():
                self.close()
            self.start()
            try:
                reply = self._call(request)
                if reply.get("exhausted"):
                    self.close()
            except TimeoutError:
                self.close()
                return RewardResult(0.0, status="timeout"), f"no result within {self.limit_s:g} s"
            except (OSError, EOFError):
                self.close()
                return RewardResult(0.0, status="error"), "the process died"
            except (ValueError, RecursionError):
                self.close()
                return RewardResult(0.0, status="error"), f"expected one reply of at most {MAX_REPLY_BYTES:,} bytes"
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
        environment = self._child_environment()
        self._socket, child_socket = socket.socketpair()
        with child_socket:
            arguments = [path, function, int(self.memory_gb * 2**30), os.getpid(), child_socket.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), *map(str, arguments)],
                pass_fds=[child_socket.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
        try:
            problem = self._receive(time.monotonic() + START_LIMIT_S, 0).get("problem")
        except TimeoutError:
            problem = f"not loaded within {START_LIMIT_S:g} s"
        except (OSError, EOFError, ValueError, RecursionError):
            problem = "the process died while loading it"
        if problem:
            self.close()
            raise ConfigError(f"reward function {self.name!r}: {problem}")

    def close(self) -> None:
        """Kill the child and all processes that it started."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(KILL_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._socket = None

    def _child_environment(self) -> dict[str, str]:
        missing = [name for name in self.environment if name not in os.environ]
        if missing:
            raise ConfigError(f"reward.environment: expected the variable {missing[0]} to be set, found it unset")
        return {name: os.environ[name] for name in (*ENVIRONMENT, *self.environment) if name in os.environ}

    def _is_idle(self) -> bool:
        """Whether the child waits for a request; otherwise it has ended, or the function wrote to its socket."""
        if self._process is None or self._socket is None or self._process.poll() is not None:
            return False
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and receive its reply, both within the time limit; raises as `_receive` does."""
        assert self._socket is not None
        self._calls += 1
        deadline = time.monotonic() + self.limit_s
        self._socket.settimeout(self.limit_s)
        self._socket.sendall(json.dumps({"call": self._calls, **request}).encode() + b"\n")
        return self._receive(deadline, self._calls)

    def _receive(self, deadline: float, call: int) -> dict[str, Any]:
        """Receive the reply to a call as a JSON object in one line.

        Raises TimeoutError at the deadline, OSError or EOFError if the child died, and ValueError or RecursionError if
        the line is too long or not the reply to the call.
        """
        assert self._socket is not None
        line = b""
        while not line.endswith(b"\n"):
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            chunk = self._socket.recv(MAX_REPLY_BYTES)
            if not chunk:
                raise EOFError
            line += chunk
            if len(line) > MAX_REPLY_BYTES:
                raise ValueError
        reply = json.loads(line)
        if not isinstance(reply, dict) or reply.get("call") != call:
            raise ValueError
        return reply


def _problem(value: Any) -> str | None:
    accuracy = value.get("accuracy") if isinstance(value, dict) else value
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        return f"expected a number in [0, 1], or a mapping with 'accuracy' in [0, 1], found {value!r:.100}"
    for name, part in value.items() if isinstance(value, dict) else ():
        if not _is_number(part):
            return f"expected numeric components, found {name}={part!r:.100}"
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            return f"expected names of components of at most {MAX_NAME_CHARS} printable characters, found {name!r:.200}"
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _result(value: Any) -> RewardResult:
    parts = value if isinstance(value, dict) else {"accuracy": value}
    return RewardResult(float(parts["accuracy"]), {name: float(part) for name, part in parts.items()})
