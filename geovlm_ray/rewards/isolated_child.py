"""Child process of a user-defined reward function, started as a script by `geovlm_ray.rewards.isolated`.

It forks: the child of it, the worker, calls the function; the process itself only waits. When the worker or the caller
ends, or the caller asks for it, every process that the function started is killed, in other sessions too.

Arguments: file, function name, memory limit in bytes, process id of the caller, socket file descriptor. Requests and
replies are one JSON line each. Only the standard library is imported, so that a killed process restarts quickly.
"""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CONTEXT = ("id", "task", "question", "labels", "frame")
"""Names of the parameters that a function may have beside response and target."""
FORM = f"expected a plain function of (response, target) and optionally {', '.join(CONTEXT)}"
POLL_S = 0.5
"""Interval at which the process looks whether the caller still exists."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def load(path: str, name: str) -> Callable[..., Any]:
    """Load a function from a file; the file may import modules from its own folder.

    Raises:
        ValueError: The file or function does not exist, or the function has another form than documented.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a file, found none at {Path(path).resolve()}")
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec = importlib.util.spec_from_file_location("user_reward", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a Python file (.py), found {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_reward"] = module
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        available = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == "user_reward"]
        raise ValueError(f"expected a function {name!r} in {path}, found {', '.join(available) or 'none'}")
    function: Callable[..., Any] = getattr(module, name)
    check_form(function)
    return function


def check_form(function: Callable[..., Any]) -> None:
    """Check the form of a function without calling it.

    Raises:
        ValueError: It is a class, asynchronous or a generator, or has other parameters than documented.
    """
    called = (function, getattr(type(function), "__call__", None))  # noqa: B004 - the method of the instance
    kinds = {
        "a class": inspect.isclass(function),
        "an async function": any(map(inspect.iscoroutinefunction, called)),
        "a generator": any(inspect.isgeneratorfunction(c) or inspect.isasyncgenfunction(c) for c in called),
    }
    for kind, is_kind in kinds.items():
        if is_kind:
            raise ValueError(f"{FORM}, found {kind}")
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise ValueError(f"{FORM}, found {error}") from error
    try:
        signature.bind("", "", **context_arguments(function, dict.fromkeys(CONTEXT)))
    except TypeError as error:
        raise ValueError(f"{FORM}, found {signature}: {error}") from error
    for documented, found in zip(("response", "target"), signature.parameters, strict=False):
        if found != documented and found in ("response", "target", *CONTEXT):
            raise ValueError(f"{FORM}, found {signature}")


def context_arguments(function: Callable[..., Any], context: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``context`` that the function accepts as keyword arguments."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return context
    return {p.name: context[p.name] for p in parameters if p.name in context}


def serve(path: str, name: str, memory_bytes: int, connection: socket.socket) -> None:
    """Serve requests until the caller closes the socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    unlimited = hard == resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes if unlimited else min(hard, memory_bytes), hard))

    def problem(call: int, error: BaseException) -> bytes:
        exhausted = isinstance(error, MemoryError)
        if exhausted:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return encode(call, problem=describe_error(error, memory_bytes), exhausted=exhausted)

    try:
        function = load(path, name)
    except BaseException as error:
        connection.sendall(problem(0, error))
        return
    connection.sendall(encode(0))
    worker = os.getpid()
    for line in connection.makefile("rb"):
        request = json.loads(line)
        try:
            keywords = context_arguments(function, request["context"])
            value = function(request["response"], request["target"], **keywords)
            if os.getpid() != worker:
                # The function forked and returned in both processes.
                os._exit(0)
            reply = encode(request["call"], value=value)
        except BaseException as error:
            reply = problem(request["call"], error)
        try:
            connection.sendall(reply)
        except OSError:
            # The caller has ended, or the function closed the socket.
            return


def encode(call: int, **result: Any) -> bytes:
    """The reply to a call, as one line; numbers of other types become floats."""
    # float() would also read bytes.
    return json.dumps({"call": call, **result}, default=lambda value: value.__float__()).encode() + b"\n"


def describe_error(error: BaseException, memory_bytes: int) -> str:
    """Error type and message, truncated to 500 characters."""
    if isinstance(error, MemoryError):
        return f"MemoryError: the process has reserved more than {memory_bytes / 2**30:g} GiB (reward.memory_limit_gb)"
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return type(error).__name__


def supervise(worker: int, caller: int) -> None:
    """Wait until the worker or the caller ends, or for SIGTERM; then kill all descendants.

    The process must be a subreaper, whose children the orphans among its descendants become, and must have blocked
    SIGCHLD and SIGTERM.
    """
    while os.getppid() == caller:
        received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, POLL_S)
        if received and (received.si_signo == signal.SIGTERM or worker in reap()):
            break
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.005)


def reap() -> list[int]:
    """Process ids of the children that have ended since the last call."""
    ended = []
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.append(pid)
    return ended


def children() -> list[int]:
    """Process ids of the children, among them those that have ended and are not reaped."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if _parent(pid) == os.getpid()]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return None


def main(path: str, name: str, memory_bytes: int, caller: int, connection: socket.socket) -> None:
    """Start the worker and supervise it."""
    os.dup2(2, 1)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    worker = os.fork()
    if worker:
        # While this process holds the socket, the caller does not see the end of the worker.
        connection.close()
        supervise(worker, caller)
        return
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.setsid()
    serve(path, name, memory_bytes, connection)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), socket.socket(fileno=int(sys.argv[5])))
