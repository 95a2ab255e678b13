"""Dockerfile steps executed in a clean directory, except those that change the base system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
BASE_IMAGE_COMMANDS = ("apt-get", "useradd")
"""Steps with these commands would change this machine; they are skipped."""


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each Dockerfile instruction, in order."""
    text = (TOP / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, " ".join(rest.split())) for name, rest in (line.split(maxsplit=1) for line in lines)]


def copy_build_context(folder: Path) -> Path:
    """Copy the `docker build` context: the files of the checkout that .dockerignore includes."""
    lines = (TOP / ".dockerignore").read_text().split()
    ignore = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, folder / name, ignore=ignore)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, folder / name)
    return folder


def relocate(root: Path, text: str) -> str:
    """Rewrite absolute paths of the image to paths in a folder."""
    return re.sub(r"(?<![\w.$}/])/(opt|tmp|var)/", f"{root}/\\1/", text)


def test_dockerfile_steps_build_a_working_environment(tmp_path: Path) -> None:
    root, build_context = tmp_path / "image", copy_build_context(tmp_path / "context")
    arguments = {"BACKEND": "cpu"}
    # Keep settings of package registries from the environment.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY_", "VIRTUAL_ENV"))}
    commands = []
    for name, text in instructions():
        if name == "ARG":
            key, _, value = text.partition("=")
            arguments.setdefault(key, value)
        elif name == "COPY":
            *sources, target = (re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], word) for word in text.split())
            destination = Path(relocate(root, target))
            folder = destination if target.endswith("/") else destination.parent
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                copy = shutil.copytree if (build_context / source).is_dir() else shutil.copy
                copy(
                    build_context / source,
                    folder if (build_context / source).is_file() and target.endswith("/") else destination,
                )
        elif name == "RUN" and not any(word in text for word in BASE_IMAGE_COMMANDS):
            # Let uv link packages: copies would fill the disk.
            command = relocate(root, re.sub(r"--mount=\S+ ", "", text).replace("UV_LINK_MODE=copy ", ""))
            build = subprocess.run(
                ["sh", "-euc", command],
                env={**environment, **arguments},
                cwd=build_context,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )
            assert build.returncode == 0, f"{command}\n{build.stdout[-2000:]}\n{build.stderr[-4000:]}"
            commands.append(command)
    assert len(commands) == 2
    path = f"{root}/opt/venv/bin:{environment['PATH']}"
    command = (
        "geovlm-ray --version && python -c 'import ray, torch, vllm, geovlm_ray, actors; print(geovlm_ray.__file__)'"
    )
    result = subprocess.run(
        ["sh", "-euc", command],
        env={**environment, "PATH": path, "VLLM_LOGGING_LEVEL": "ERROR"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert f"{root}/opt/venv/lib" in result.stdout
