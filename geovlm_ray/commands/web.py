"""``geovlm-ray web``: a page to try a model on one's own images."""

from __future__ import annotations

import argparse
import socket
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from geovlm_ray.core.errors import ConfigError, RunError

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LARGEST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and where the page is reached."""
    parser.add_argument("model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or hub name")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of prompts and answers")
    parser.add_argument("--recipe", help="recipe or file of those settings (default: as the model was trained)")
    parser.add_argument("--port", type=int, default=7860, help="0: any that is free (default: 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    absent = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if absent:
        raise RunError(f"expected {', '.join(absent)} for the page, found none: pip install 'geovlm-ray[web]'")
    if not 0 <= args.port <= LARGEST_PORT:
        raise ConfigError(f"--port: expected 0 to {LARGEST_PORT}, found {args.port}")
    with _listening(args.host, args.port) as listener, suppress(KeyboardInterrupt):
        _serve(args, listener)
    return 0


def _serve(args: argparse.Namespace, listener: socket.socket) -> None:
    import uvicorn

    from geovlm_ray.serving.answering import Answerer
    from geovlm_ray.serving.model_ref import resolve_model
    from geovlm_ray.serving.web.app import is_loopback, make_app

    ref = resolve_model(args.model, args.recipe, args.overrides)
    app = make_app(Answerer(ref), _name(args.model, ref.path, ref.run), args.host)
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"Page: http://{host}:{listener.getsockname()[1]} (Ctrl-C ends)", flush=True)
    if not is_loopback(args.host):
        print("Whoever reaches this address may use the model: there is no password.", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False)).run([listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is reached at an address, of which nothing else has taken the port."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise RunError(
            f"--host {host} --port {port}: expected an address that is free, found: {error.strerror}"
        ) from error


def _name(model: str, path: Path, run: Path | None) -> str:
    """What a model is called on the page."""
    return f"{run.resolve().name}, {path.name}" if run and run != path else Path(model).name or path.resolve().name
