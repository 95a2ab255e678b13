"""The web page for trying a model: request validation, and its behaviour in a browser."""

from __future__ import annotations

import base64
import io
import itertools
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform
from starlette.testclient import TestClient
from websockets.sync.client import ClientConnection, connect

from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.serving.web import app as web
from geovlm_ray.serving.web import server as web_server
from geovlm_ray.serving.web.app import make_app
from geovlm_ray.serving.web.server import make_server
from tests.system.test_report_in_a_browser import BROWSER, HOSTILE

QUESTION = "find all ships ."
BROWSER_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
QUIET_OPTIONS = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return Answerer(resolve_model("tiny"))


@pytest.fixture
def client(answerer: Answerer) -> TestClient:
    return TestClient(make_app(answerer, "a <model>", "127.0.0.1"), base_url="http://127.0.0.1:7860")


def png(task: str = "object_detection", k: int = 0) -> bytes:
    sink = io.BytesIO()
    render_scene(scene_example(task, 1_000_000_007, 0).images[k]).save(sink, "PNG")
    return sink.getvalue()


def upload(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{k}.png", content)) for k, content in enumerate(contents)]


def test_answer_includes_boxes_drawn_on_the_last_image(client: TestClient, answerer: Answerer, tmp_path: Path) -> None:
    (tmp_path / "scene").write_bytes(png())
    expected = answerer.answer([str(tmp_path / "scene")], QUESTION, "object_detection")
    assert expected.boxes
    response = client.post("/answer", data={"question": QUESTION, "task": "object_detection"}, files=upload(png()))
    assert response.status_code == 200
    answer = response.json()
    assert (answer["answer"], answer["reasoning"]) == (expected.answer, expected.reasoning)
    assert answer["boxes"] == [{"coords": list(box.coords), "label": box.label} for box in expected.boxes]
    annotated = Image.open(io.BytesIO(base64.b64decode(answer["picture"].partition(",")[2])))
    assert max(annotated.size) == 1024
    two = client.post(
        "/answer",
        data={"question": "how damaged is the building at [31, 37, 75, 71] ?"},
        files=upload(png("damage_assessment", 0), png("damage_assessment", 1)),
    )
    assert two.json()["answer"]
    assert two.json()["boxes"] == []


def test_boxes_on_a_geotiff_are_offered_as_geojson(client: TestClient, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(png()))).transpose(2, 0, 1)
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_100_000, 0.5, 0.5)}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 112, 112, 3, dtype="uint8", **where) as file:
        file.write(pixels)
    files = [("images", ("port.tif", (tmp_path / "a.tif").read_bytes()))]
    answer = client.post("/answer", data={"question": QUESTION, "task": "object_detection"}, files=files).json()
    features = json.loads(answer["geojson"])["features"]
    assert len(features) == len(answer["boxes"]) > 0
    assert features[0]["properties"]["scene"] == "port.tif"
    ring = np.array(features[0]["geometry"]["coordinates"][0])
    x, y = transform("EPSG:4326", "EPSG:32633", *ring.T)
    left, top, right, bottom = (v * 1.12 * 0.5 for v in answer["boxes"][0]["coords"][:4])  # percent of 112 pixels
    assert (min(x), max(x)) == pytest.approx((500_000 + left, 500_000 + right), abs=0.01)
    assert (min(y), max(y)) == pytest.approx((4_100_000 - bottom, 4_100_000 - top), abs=0.01)
    plain = client.post("/answer", data={"question": QUESTION, "task": "object_detection"}, files=upload(png())).json()
    assert plain["geojson"] is None


def test_invalid_uploads_are_rejected_by_their_file_name(client: TestClient) -> None:
    def error(files: list[Any], **data: str) -> str:
        response = client.post("/answer", data={"question": QUESTION, **data}, files=files)
        assert response.status_code == 400
        return response.json()["error"]

    assert "image 0.png: expected a decodable image" in error(upload(b"no picture"))
    assert "image 1.png: expected a decodable image" in error(upload(png(), png()[:300]))
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    assert "image 0.png: " in error(upload(bomb.getvalue()))
    assert "at most" in error(upload(bomb.getvalue())) or "bomb" in error(upload(bomb.getvalue()))
    assert "expected 1 to 8 images, found 9" in error(upload(*[png()] * 9))
    assert "expected a question" in error(upload(png()), question=" ")
    assert "question: " in error(upload(png()), question="x" * 3000)
    assert "task: expected one of" in error(upload(png()), task="segmentation")
    assert "the question must not contain any" in error(upload(png()), question="<|image_pad|> ?")
    assert "rollout.max_model_len" in error(upload(png()), question="? " * 900)
    assert "images: " in error([])


def test_oversized_and_cross_origin_requests_are_rejected(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(**headers: str) -> int:
        return client.post("/answer", data={"question": QUESTION}, files=upload(png()), headers=headers).status_code

    assert status() == 200
    assert status(origin="http://127.0.0.1:7860") == 200
    assert status(origin="https://elsewhere.example") == 403
    assert status(origin="null") == 403
    assert status(host="rebound.example") == 403
    assert status(origin="http://[") == 400
    assert client.post("/answer", content=iter([b"chunked"])).status_code == 411
    monkeypatch.setattr(web, "MAX_UPLOAD_BYTES", 1000)
    assert status() == 413


def test_images_that_are_large_when_decoded_are_rejected_by_their_name(client: TestClient) -> None:
    sink = io.BytesIO()
    Image.new("1", (8300, 8300)).save(sink, "PNG")
    response = client.post("/answer", data={"question": QUESTION}, files=upload(png(), sink.getvalue()))
    message = "image 1.png: expected at most 256 MiB when decoded, found 263 MiB (8300 x 8300 pixels)"
    assert (response.status_code, response.json()) == (400, {"error": message})


def test_page_sets_a_content_security_policy_and_stores_no_files(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    page = client.get("/")
    assert "<h1>a &lt;model&gt;</h1>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    absent = client.get("/docs")
    assert (absent.status_code, absent.json()) == (404, {"error": "Not Found"})
    assert client.post("/answer", data={"question": QUESTION}, files=upload(png())).status_code == 200
    assert client.post("/answer", data={"question": QUESTION}, files=upload(b"junk")).status_code == 400
    assert list(tmp_path.iterdir()) == []


def connection(address: str, content: bytes = b"") -> socket.socket:
    """A connection to the server on which ``content`` has been sent."""
    host, port = address.removeprefix("http://").strip("/").split(":")
    client_socket = socket.create_connection((host, int(port)), timeout=10)
    client_socket.sendall(content)
    return client_socket


def received(client_socket: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection; sends a byte whenever it sends nothing."""
    content = b""
    client_socket.settimeout(0.1)
    with client_socket, suppress(ConnectionError):
        while True:
            try:
                chunk = client_socket.recv(65_536)
            except TimeoutError:
                client_socket.sendall(b"x")
                continue
            if not chunk:
                break
            content += chunk
    return content


HEAD = b"Host: 127.0.0.1\r\n"
POST = b"POST /answer HTTP/1.1\r\n" + HEAD


@pytest.mark.parametrize(
    ("content", "answers"),
    [
        (b"", [b"408"]),
        (b"GET / HTTP/1.1\r\nX-Slow: ", [b"408"]),
        (
            POST + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000\r\n\r\n--b\r\nX-Slow: ",
            [b"408"],
        ),
        (b"GET / HTTP/1.1\r\n" + HEAD + b"\r\nGET / HTTP/1.1\r\nX-Slow: ", [b"200", b"408"]),
    ],
)
def test_slow_requests_are_ended_while_others_are_answered(
    address: str, content: bytes, answers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "HEADER_SECONDS", 1)
    monkeypatch.setattr(web_server, "BODY_SECONDS", 1)
    slow = connection(address, content)
    with urllib.request.urlopen(address) as page:
        assert page.status == 200
    start = time.monotonic()
    assert re.findall(rb"HTTP/1.1 (\d+)", received(slow)) == answers
    assert time.monotonic() - start < 5


def test_client_that_does_not_read_is_disconnected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "WRITE_SECONDS", 0.5)
    request = b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n"
    with connection(address) as client_socket:
        client_socket.settimeout(5)
        with pytest.raises(ConnectionError):
            client_socket.sendall(request * 1_000_000)


def test_number_of_connections_is_limited(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "MAX_CONNECTIONS", 3)
    held = [connection(address) for _ in range(3)]
    assert received(connection(address)).startswith(b"HTTP/1.1 503 ")
    for client_socket in held:
        client_socket.close()
    with urllib.request.urlopen(address) as page:
        assert page.status == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 10\r\n\r\n", b"411"),
        (POST + b"Content-Length: 67108865\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\n" + HEAD + b"Content-Length: 67108865\r\n\r\n", b"413"),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
        (POST + b"X: " + b"x" * 100_000, b"400"),
    ],
)
def test_size_of_requests_is_limited(
    address: str, content: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "BODY_SECONDS", 0.5)
    assert received(connection(address, content)).startswith(b"HTTP/1.1 " + status)


def test_unexpected_error_is_one_line_on_the_page_and_a_traceback_in_the_log(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
    with httpx.Client(base_url=address) as browser:
        response = browser.post("/answer", data={"question": QUESTION}, files=upload(png()))
        assert response.status_code == 500
        assert response.json() == {"error": "the request failed; the log of the server has the reason"}
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        (record,) = (r for r in caplog.records if r.levelno >= logging.ERROR)
        assert record.exc_info
        assert isinstance(record.exc_info[1], FileNotFoundError)
    monkeypatch.undo()
    # The server ends a connection after such an error.
    with httpx.Client(base_url=address) as browser:
        assert browser.post("/answer", data={"question": QUESTION}, files=upload(png())).status_code == 200


@pytest.mark.slow
def test_command_serves_until_interrupted_and_reports_a_port_in_use() -> None:
    command = [str(Path(sys.executable).with_name("geovlm-ray")), "web", "tiny", "--port"]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().split()[1]
        with urllib.request.urlopen(address) as page:
            assert "<h1>tiny</h1>" in page.read().decode()
        port = address.rpartition(":")[2]
        second = subprocess.run([*command, port], capture_output=True, text=True, check=False)
        assert (second.returncode, len(second.stderr.strip().splitlines())) == (1, 1)
        assert f"--port {port}: expected a free address, found: Address already in use" in second.stderr
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=60), process.communicate()[1]) == (130, "geovlm-ray web: interrupted\n")


class Browser:
    """A Chromium page controlled through the DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            response = json.loads(self._socket.recv(timeout=60))
            if response.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.errors.append(json.dumps(response["params"]))
            if response.get("id") == number:
                assert "error" not in response, response
                return response["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")

    def wait(self, expression: str) -> Any:
        deadline = time.monotonic() + 90
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"{expression}\n{self.value('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def choose(self, *files: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#images")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def ask(self, question: str) -> None:
        self.value(f"at('question').value = {json.dumps(question)}; at('send').click()")

    def screenshot(self, width: int, height: int) -> bytes:
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])


@contextmanager
def browser(profile: Path, address: str) -> Iterator[Browser]:
    command = [str(BROWSER), *BROWSER_OPTIONS, *QUIET_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port_file.is_file() or not port_file.read_text().strip():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port_file.read_text().split()[0]}/json/list") as pages:
            (target,) = (p for p in json.load(pages) if p["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Browser(socket)
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            page.call("Page.navigate", url=address)
            page.wait("document.readyState === 'complete' && document.getElementById('ask') !== null")
            yield page
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def address(answerer: Answerer) -> Iterator[str]:
    server = make_server(make_app(answerer, HOSTILE, "127.0.0.1"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="requires Chromium or Chrome in PATH")
def test_uploaded_image_is_answered_and_hostile_text_is_escaped(
    address: str, answerer: Answerer, tmp_path: Path
) -> None:
    scene = tmp_path / f"{HOSTILE.replace('/', '')[:60]}.png"
    scene.write_bytes(png())
    expected = answerer.answer([str(scene)], QUESTION)
    with browser(tmp_path / "profile", address) as page:
        page.choose(scene)
        page.wait("document.querySelector('#chosen img').naturalWidth > 0")
        page.ask(QUESTION)
        page.wait("document.querySelectorAll('article').length === 1")
        assert page.value("document.querySelector('.said').textContent") == expected.answer
        assert page.value("document.querySelector('.reasoning').textContent") == expected.reasoning
        assert page.value("document.querySelectorAll('.boxes li').length") == len(expected.boxes)
        assert page.wait("document.querySelector('article img').naturalWidth") == 1024
        page.value("document.querySelector('[data-task=change_captioning]').click()")
        page.wait("document.querySelectorAll('article').length === 2")
        assert page.value("document.querySelectorAll('#chosen img').length") == 2
        assert page.value("document.querySelector('.map').classList.contains('placed')") is False
        page.value("document.querySelector('[data-task=object_detection]').click()")
        page.wait("document.querySelectorAll('article').length === 3")
        page.ask(HOSTILE)
        page.wait("document.querySelectorAll('article').length === 4 || at('state').className === 'wrong'")
        assert page.value("document.querySelector('.asked').textContent") == HOSTILE
        (tmp_path / "broken.png").write_bytes(b"no picture")
        page.choose(tmp_path / "broken.png")
        page.ask(QUESTION)
        page.wait("at('state').className === 'wrong'")
        assert "broken.png" in page.value("at('state').textContent")
        assert page.value("document.title") == HOSTILE
        assert page.value("document.querySelectorAll('script').length") == 1
        unexpected = [c for c in page.errors if "favicon" not in c and "/answer" not in c]
        assert unexpected == [], "a Content Security Policy violation or a script error"
        widths = []
        for width in (390, 1280):
            page.screenshot(width, 844)
            widths.append(page.value("document.documentElement.scrollWidth"))
        assert widths[0] <= 390, "the page scrolls horizontally on a phone"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="requires Chromium or Chrome in PATH")
def test_injected_script_is_blocked_by_the_content_security_policy(address: str, tmp_path: Path) -> None:
    with browser(tmp_path / "profile", address) as page:
        page.value(f"document.querySelector('main').insertAdjacentHTML('beforeend', {json.dumps(HOSTILE)})")
        page.wait("document.querySelector('main svg') !== null")
        time.sleep(0.5)
        assert page.value("document.title") != "owned"
        assert any("Content Security Policy" in c for c in page.errors)
