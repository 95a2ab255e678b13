"""The process that runs a user's reward function; started by `geovlm_ray.rewards.isolated`, by its path.

Arguments: file, function, time limit in seconds, number of the socket. One JSON line comes in per response, one
goes out. Only the standard library is imported, so that a killed process is back at once.
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

GRACE_S = 1.0
"""The caller kills at the limit; where it is gone, the process ends itself this much later."""


def load(path: str, name: str) -> Callable[..., Any]:
    """The function of a file, which may import its neighbours.

    Raises:
        ValueError: there is no such file or function.
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
        known = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == "user_reward"]
        raise ValueError(f"expected a function {name!r} in {path}, found {', '.join(known) or 'none'}")
    function: Callable[..., Any] = getattr(module, name)
    return function


def extras(function: Callable[..., Any], context: dict[str, Any]) -> dict[str, Any]:
    """What of a record's context the function takes by name."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return context
    return {p.name: context[p.name] for p in parameters if p.name in context}


def main(path: str, name: str, limit_s: float, connection: socket.socket) -> None:
    """Answer requests until the other end closes; end by itself where a call outlives its limit and the caller."""
    lines = connection.makefile("rwb")

    def reply(key: str, value: Any) -> None:
        lines.write(json.dumps({key: value}, default=float).encode() + b"\n")
        lines.flush()

    try:
        function = load(path, name)
    except Exception as error:
        reply("problem", describe(error))
        return
    reply("problem", None)
    with open(os.devnull, "w") as nowhere:
        for line in lines:
            faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=nowhere)
            request = json.loads(line)
            try:
                reply("value", function(request["response"], request["target"], **extras(function, request["context"])))
            except Exception as error:
                reply("problem", describe(error))
            faulthandler.cancel_dump_traceback_later()


def describe(error: Exception) -> str:
    """An error in a line of bounded length."""
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    os.dup2(2, 1)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), socket.socket(fileno=int(sys.argv[4])))
