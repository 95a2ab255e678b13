"""The steps that build the image, executed in a clean directory: everything but the base image and its packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
OF_THE_BASE = ("apt-get", "useradd")
"""Steps with these change the machine that they run on."""


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of the Dockerfile's instructions, in order."""
    text = (TOP / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, " ".join(rest.split())) for name, rest in (line.split(maxsplit=1) for line in lines)]


def context(folder: Path) -> Path:
    """What `docker build` would be given of the checkout: what .dockerignore leaves."""
    lines = (TOP / ".dockerignore").read_text().split()
    skipped = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, folder / name, ignore=skipped)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, folder / name)
    return folder


def below(root: Path, text: str) -> str:
    """Absolute paths of the image as paths below a folder."""
    return re.sub(r"(?<![\w.$}/])/(opt|tmp|var)/", f"{root}/\\1/", text)


def test_the_steps_build_an_environment_that_runs(tmp_path: Path) -> None:
    root, given = tmp_path / "image", context(tmp_path / "context")
    arguments = {"BACKEND": "cpu"}
    # How this machine reaches package registries stands in its environment.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY_", "VIRTUAL_ENV"))}
    done = []
    for name, text in instructions():
        if name == "ARG":
            key, _, value = text.partition("=")
            arguments.setdefault(key, value)
        elif name == "COPY":
            *sources, target = (re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], word) for word in text.split())
            place = Path(below(root, target))
            folder = place if target.endswith("/") else place.parent
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                copy = shutil.copytree if (given / source).is_dir() else shutil.copy
                copy(given / source, folder if (given / source).is_file() and target.endswith("/") else place)
        elif name == "RUN" and not any(word in text for word in OF_THE_BASE):
            # Copies of a package that is installed already would fill the disk.
            command = below(root, re.sub(r"--mount=\S+ ", "", text).replace("UV_LINK_MODE=copy ", ""))
            made = subprocess.run(
                ["sh", "-euc", command],
                env={**environment, **arguments},
                cwd=given,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )
            assert made.returncode == 0, f"{command}\n{made.stdout[-2000:]}\n{made.stderr[-4000:]}"
            done.append(command)
    assert len(done) == 2
    path = f"{root}/opt/venv/bin:{environment['PATH']}"
    command = (
        "geovlm-ray --version && python -c 'import ray, torch, vllm, geovlm_ray, actors; print(geovlm_ray.__file__)'"
    )
    ran = subprocess.run(
        ["sh", "-euc", command],
        env={**environment, "PATH": path, "VLLM_LOGGING_LEVEL": "ERROR"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert f"{root}/opt/venv/lib" in ran.stdout
