"""``geovlm-ray web``: a web page for questions about uploaded images."""

from __future__ import annotations

import argparse
import socket
from importlib.util import find_spec
from pathlib import Path

from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.report.terminal import open_console

REQUIRED_PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
MAX_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or Hugging Face name"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="overrides of prompt and sampling settings"
    )
    parser.add_argument("--recipe", help="recipe or YAML file of these settings (default: those of training)")
    parser.add_argument("--port", type=int, default=7860, help="port, 0 for any free one (default: 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    missing = [package for module, package in REQUIRED_PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise RunError(f"expected the packages {', '.join(missing)}, found none; pip install 'geovlm-ray[web]'")
    if not 0 <= args.port <= MAX_PORT:
        raise ConfigError(f"--port: expected 0 to {MAX_PORT}, found {args.port}")
    with _listen(args.host, args.port) as listener:
        _serve(args, listener)
    return 0


def _serve(args: argparse.Namespace, listener: socket.socket) -> None:
    from geovlm_ray.serving.answering import Answerer
    from geovlm_ray.serving.model_ref import resolve_model
    from geovlm_ray.serving.web.app import is_loopback, make_app
    from geovlm_ray.serving.web.server import make_server

    ref = resolve_model(args.model, args.recipe, args.overrides)
    name = Path(args.model).name or ref.path.resolve().name
    if ref.run and ref.run != ref.path:
        name = f"{ref.run.resolve().name}, {ref.path.name}"
    app = make_app(Answerer(ref), name, args.host)
    host = f"[{args.host}]" if ":" in args.host else args.host
    console = open_console()
    console.print(f"Page: http://{host}:{listener.getsockname()[1]} (Ctrl-C quits)")
    if not is_loopback(args.host):
        console.print("Warning: no authentication; anyone who can reach this address can use the model.")
    make_server(app).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on a free port."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"--host {host} --port {port}: expected a free address, found: {reason}") from error
