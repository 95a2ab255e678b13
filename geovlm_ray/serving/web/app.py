"""The page's server: one page, and answers to what is uploaded from it."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import tempfile
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import TASK_NAMES
from geovlm_ray.model.prompts import MAX_IMAGES
from geovlm_ray.report.page import STYLE, data_uri, page
from geovlm_ray.serving.answering import Answerer

MAX_UPLOAD_BYTES = 64 * 2**20
"""Of all images of a question together."""
MAX_QUESTION_CHARS = 2000
INSTRUCTED, FREE = "(optional: asks for the form of its answers)", "(optional)"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def make_app(answerer: Answerer, name: str, host: str) -> FastAPI:
    """A server for the page of a model called ``name``, reached under the address ``host``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    style = _part("page.css")
    shown = page(name, _body(name, instructed=answerer.config.prompt.instructions), style)
    headers = _headers(STYLE + style)
    # One model answers one question at a time.
    one = threading.Lock()

    @app.middleware("http")
    async def guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = _refusal(request, host)
        response = JSONResponse({"error": refusal[1]}, refusal[0]) if refusal else await proceed(request)
        response.headers.update(headers)
        return response

    @app.exception_handler(DataError)
    async def wrong(request: Request, error: DataError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)

    @app.get("/")
    async def start() -> HTMLResponse:
        return HTMLResponse(shown)

    @app.get("/page.js")
    async def script() -> Response:
        return Response(_part("page.js"), media_type="text/javascript")

    @app.post("/answer")
    def answer(
        images: Annotated[list[UploadFile], File()],
        question: Annotated[str, Form(max_length=MAX_QUESTION_CHARS)],
        task: Annotated[str, Form()] = "",
    ) -> dict[str, Any]:
        if task and task not in TASK_NAMES:
            raise DataError(f"task: expected one of {', '.join(TASK_NAMES)}, found {task!r}")
        with one, tempfile.TemporaryDirectory(prefix="geovlm-web-") as folder:
            return _answered(answerer, images, question, task or None, Path(folder))

    return app


def _answered(
    answerer: Answerer, images: list[UploadFile], question: str, task: str | None, folder: Path
) -> dict[str, Any]:
    """The answer as JSON; uploads lie in the folder meanwhile."""
    paths = [folder / str(k) for k in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image.file.read())
    try:
        answer = answerer.answer(list(map(str, paths)), question, task)
        picture = answerer.picture(str(paths[-1]), answer.boxes)
    except DataError as error:
        message = str(error)
        for path, image in zip(paths, images, strict=True):
            message = message.replace(str(path.resolve()), image.filename or "without a name")
        raise DataError(message) from error
    return {
        "response": answer.response,
        "reasoning": answer.reasoning,
        "answer": answer.answer,
        "boxes": [{"coords": box.coords, "label": box.label} for box in answer.boxes],
        "units": answerer.frame.kind,
        "picture": data_uri(picture),
        "seconds": answer.seconds,
    }


def _refusal(request: Request, host: str) -> tuple[int, str] | None:
    """Why a request is not answered: it is for another name, comes from another page, or is too large."""
    own = request.url.hostname or ""
    if is_loopback(host) and own not in (*LOCAL_NAMES, host):
        # Another site's name may be made to lead here.
        return 403, f"expected a request for {host}, found one for {own}"
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return 403, f"expected a request from this page, found one from {origin}"
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "expected the length of the request, found none"
        if int(length) > MAX_UPLOAD_BYTES:
            return 413, f"expected at most {MAX_UPLOAD_BYTES // 2**20} MiB of images, found {int(length) / 2**20:.0f}"
    return None


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(style: str) -> dict[str, str]:
    """What every response says: this page's own script and style, pictures from data, and nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _body(name: str, *, instructed: bool) -> str:
    tasks = "".join(f'<option value="{task}">{task.replace("_", " ")}</option>' for task in TASK_NAMES)
    return Template(_part("page.html")).substitute(
        name=html.escape(name),
        tasks=tasks,
        task_note=INSTRUCTED if instructed else FREE,
        limit=MAX_UPLOAD_BYTES,
        most=MAX_IMAGES,
        longest=MAX_QUESTION_CHARS,
    )


def _part(file: str) -> str:
    return (files("geovlm_ray.serving.web") / file).read_text(encoding="utf-8")
