"""FastAPI app: the page, its script, and ``POST /answer`` for uploaded images and a question."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import tempfile
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.images import image_header
from geovlm_ray.model.prompts import MAX_IMAGES
from geovlm_ray.report.page import data_uri, render
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.web.examples import page_examples, picture
from geovlm_ray.serving.web.on_map import geojson_of
from geovlm_ray.tasks import TASKS, find_task

MAX_UPLOAD_BYTES = 64 * 2**20
"""Limit of the request body: all images of a question together."""
MAX_DECODED_BYTES = 2**28
"""Limit of the decoded size of each image: 67 million RGB pixels."""
MAX_QUESTION_CHARS = 2000
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def make_app(answerer: Answerer, name: str, host: str) -> FastAPI:
    """Build the app for a model; ``name`` is shown on the page, ``host`` is the address that the server listens on."""
    examples = page_examples()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = render(
        "web.html",
        name=name,
        tasks=TASKS,
        instructions=answerer.config.prompt.instructions,
        limit=MAX_UPLOAD_BYTES,
        max_images=MAX_IMAGES,
        max_chars=MAX_QUESTION_CHARS,
        examples=examples,
    )
    headers = _headers(page)
    _handle_errors(app, headers)
    # Answerer is not thread-safe.
    lock = threading.Lock()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        rejection = _reject(request, host)
        response = JSONResponse({"error": rejection[1]}, rejection[0]) if rejection else await call_next(request)
        response.headers.update(headers)
        return response

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/page.js")
    async def script() -> Response:
        code = (files("geovlm_ray.serving.web") / "page.js").read_text(encoding="utf-8")
        return Response(code, media_type="text/javascript")

    @app.get("/examples/{k}/{number}.png")
    def example_picture(k: int, number: int) -> Response:
        if not 0 <= k < len(examples) or not 0 <= number < len(examples[k].images):
            raise HTTPException(404, "no such picture")
        return Response(picture(examples[k], number), media_type="image/png")

    @app.post("/answer")
    def answer(
        images: Annotated[list[UploadFile], File()],
        question: Annotated[str, Form(max_length=MAX_QUESTION_CHARS)],
        task: Annotated[str, Form()] = "",
    ) -> dict[str, Any]:
        if task:
            find_task(task)
        with lock, tempfile.TemporaryDirectory(prefix="geovlm-web-") as folder:
            return _answer(answerer, images, question, task or None, Path(folder))

    return app


def _handle_errors(app: FastAPI, headers: dict[str, str]) -> None:
    """Answer every error with one line of JSON."""

    @app.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> JSONResponse:
        # Called outside guard. The server logs the traceback.
        return JSONResponse({"error": "the request failed; the log of the server has the reason"}, 500, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(DataError)
    async def data_error(request: Request, error: DataError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)


def _answer(
    answerer: Answerer, images: list[UploadFile], question: str, task: str | None, folder: Path
) -> dict[str, Any]:
    """The answer as JSON; ``folder`` holds the uploads temporarily."""
    paths = [folder / str(k) for k in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image.file.read())
    try:
        for path in paths:
            image_header(str(path), MAX_DECODED_BYTES)
        answer = answerer.answer(list(map(str, paths)), question, task)
        annotated = answerer.annotate(str(paths[-1]), answer)
    except DataError as error:
        message = str(error)
        for path, image in zip(paths, images, strict=True):
            message = message.replace(str(path.resolve()), image.filename or "(unnamed)")
        raise DataError(message) from error
    return {
        "response": answer.response,
        "reasoning": answer.reasoning,
        "answer": answer.answer,
        "boxes": [{"coords": box.coords, "label": box.label} for box in answer.boxes],
        "units": answer.frame.kind,
        "picture": data_uri(annotated),
        "geojson": geojson_of(paths[-1], images[-1].filename or "image", answer),
        "seconds": answer.seconds,
    }


def _reject(request: Request, host: str) -> tuple[int, str] | None:
    """HTTP status and error for a request with a foreign host or origin or an invalid length; None to accept it.

    The server has checked that the length is a number.
    """
    try:
        requested = request.url.hostname or ""
        origin = request.headers.get("origin")
        foreign = origin and urlsplit(origin).netloc != request.headers.get("host")
    except ValueError as error:
        return 400, f"expected the headers of a browser, found: {error}"
    if is_loopback(host) and requested not in (*LOCAL_NAMES, host):
        # DNS rebinding: a foreign host name may resolve to this address.
        return 403, f"expected a request for {host}, found one for {requested}"
    if foreign:
        return 403, f"expected a request from this page, found one from {origin}"
    length = request.headers.get("content-length", "")
    if "transfer-encoding" in request.headers or (request.method == "POST" and not length):
        # The length would be unknown until the body has been received.
        return 411, "expected a Content-Length header and no Transfer-Encoding"
    if int(length or 0) > MAX_UPLOAD_BYTES:
        return 413, f"expected at most {MAX_UPLOAD_BYTES // 2**20} MiB, found {int(length) / 2**20:.0f} MiB"
    return None


def is_loopback(host: str) -> bool:
    """Whether an address is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(page: str) -> dict[str, str]:
    """Headers of every response; the CSP allows only the page's own script and style, and data: and blob: images."""
    style = page.partition("<style>")[2].partition("</style>")[0]
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
