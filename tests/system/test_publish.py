"""Publishing on the Hub, against a server that speaks its protocol: what is uploaded, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, constants

from geovlm_ray.cli import main
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.hub import Publication
from tests.unit.conversion import write_json, write_scene

pytestmark = pytest.mark.slow


@dataclass
class Hub:
    """What a server of the Hub's protocol has received; ``status`` is that of its answers to new repositories."""

    repositories: list[dict[str, object]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    status: int = 200


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    received = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            received.tokens.add(self.headers.get("authorization", ""))
            if self.path == "/api/repos/create":
                received.repositories.append(json.loads(body))
                name = json.loads(body)["name"]
                self.answer(received.status, {"url": f"{constants.ENDPOINT}/me/{name}", "error": "not yours"})
            elif self.path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                self.answer(
                    200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
                )
            else:
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "file":
                        received.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{constants.ENDPOINT}/me/x/commit/0"
                self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})

        def do_GET(self) -> None:
            self.answer(received.status, {"sha": "0" * 40, "id": "me/x", "siblings": []})

        def answer(self, status: int, content: object) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A converted dataset whose images are beside it."""
    write_scene(tmp_path / "private" / "a.png")
    record = {"id": "1", "task": "vqa", "images": ["a.png"], "prompt": "Is there a shed?", "reference": "yes"}
    records = [record, record | {"id": "2", "images": ["absent.png"]}, {"id": "3"}]
    source = write_json(tmp_path / "private" / "records.jsonl", records)
    out = tmp_path / "data"
    words = ["data", "convert", "samples", str(source), str(out), "--licence", "CC-BY-4.0", "--dataset", "Sheds"]
    words += ["--max-bad", "0.5"]
    assert main(words) == 0
    return out


def test_model_is_uploaded_with_its_card(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["export", "tiny", str(out), "--push", "me/ships", "--private"]) == 0
    (repository,) = hub.repositories
    assert (repository["name"], repository["organization"], repository["visibility"]) == ("ships", "me", "private")
    assert hub.files["README.md"] == (out / "README.md").read_bytes()
    assert {"config.json", "model.safetensors", "geovlm_ray.yaml"} <= hub.files.keys()
    assert hub.tokens == {"Bearer hf_secret"}
    assert "Published: " in capsys.readouterr().out


def test_dry_run_lists_files_without_the_network(hub: Hub, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "publish", str(dataset), "--push", "me/sheds", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"part-00000\.parquet  [\d,]+ bytes", output)
    assert "Would upload 3 files, " in output
    assert (hub.repositories, hub.files) == ([], {})


def test_dataset_is_uploaded_with_its_card_and_without_local_paths(hub: Hub, dataset: Path) -> None:
    assert main(["data", "publish", str(dataset), "--push", "me/sheds"]) == 0
    assert sorted(hub.files) == ["README.md", "dataset.json", "part-00000.parquet"]
    assert (dataset / "quarantine.parquet").is_file(), "its reasons name local paths"
    assert str(dataset.parent) not in hub.files["dataset.json"].decode()
    assert str(dataset.parent) in (dataset / "dataset.json").read_text()
    card = DatasetCard(hub.files["README.md"].decode())
    assert card.data.configs == [{"config_name": "default", "data_files": "part-*.parquet"}]
    assert "| Sheds | train | vqa | 2 |" in card.text
    assert "| CC-BY-4.0 | 2 |" in card.text
    assert "The images are not part of this repository" in card.text


def test_refusal_of_the_hub_is_one_error(hub: Hub, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.status = 403
    assert main(["data", "publish", str(dataset), "--push", "you/sheds"]) == 1
    error = capsys.readouterr().err
    assert "--push you/sheds: expected the Hub to accept" in error
    assert "`hf auth login` stores a token" in error
    assert "hf_secret" not in error


@pytest.mark.parametrize("name", ["sheds", "a/b/c", "", "me/", "../x", "me/sh eds"])
def test_names_of_repositories_are_checked_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--push: expected owner/name on the Hugging Face Hub, found"):
        Publication(tmp_path, name, "model")
