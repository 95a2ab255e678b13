"""Child process of a user-defined reward function, started as a script by `geovlm_ray.rewards.isolated`.

Arguments: file, function name, time limit in seconds, socket file descriptor. Requests and replies are one JSON line
each. Only the standard library is imported, so that a killed process restarts quickly.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = ("id", "task", "question", "labels", "frame")
"""Names of the parameters that a function may have beside response and target."""
GRACE_S = 1.0
"""Seconds after the time limit at which the process exits by itself, if the caller is gone and cannot kill it."""


def load(path: str, name: str) -> Callable[..., Any]:
    """Load a function from a file; the file may import modules from its own folder.

    Raises:
        ValueError: The file or function does not exist, or the function has other parameters than documented.
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
    try:
        inspect.signature(function).bind("", "", **context_arguments(function, dict.fromkeys(CONTEXT)))
    except TypeError as error:
        expected = f"expected parameters (response, target) and optionally {', '.join(CONTEXT)}"
        raise ValueError(f"{expected}, found {inspect.signature(function)}: {error}") from error
    return function


def context_arguments(function: Callable[..., Any], context: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``context`` that the function accepts as keyword arguments."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return context
    return {p.name: context[p.name] for p in parameters if p.name in context}


def main(path: str, name: str, limit_s: float, connection: socket.socket) -> None:
    """Serve requests until the caller closes the socket; exits if a call outlives its time limit and the caller."""
    lines = connection.makefile("rwb")

    def reply(key: str, value: Any) -> None:
        lines.write(json.dumps({key: value}, default=float).encode() + b"\n")
        lines.flush()

    try:
        function = load(path, name)
    except Exception as error:
        reply("problem", describe_error(error))
        return
    reply("problem", None)
    with open(os.devnull, "w") as devnull:
        for line in lines:
            faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=devnull)
            request = json.loads(line)
            try:
                keywords = context_arguments(function, request["context"])
                reply("value", function(request["response"], request["target"], **keywords))
            except Exception as error:
                reply("problem", describe_error(error))
            faulthandler.cancel_dump_traceback_later()


def describe_error(error: Exception) -> str:
    """Error type and message, truncated to 500 characters."""
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    os.dup2(2, 1)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), socket.socket(fileno=int(sys.argv[4])))
