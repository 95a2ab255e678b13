"""What is installed and pulled is pinned: images by digest, packages and what builds them by hash."""

from __future__ import annotations

import re

import pytest
import yaml

from geovlm_ray import __version__
from tests.unit.test_deploy import DEPLOY, TOP, compose, pods

SCRIPTS = ("Makefile", "deploy/Dockerfile", "deploy/ray-cluster.yaml")


def installations(name: str) -> list[str]:
    """Arguments of every `pip install`, of pip or uv, that a file contains."""
    text = (TOP / name).read_text()
    if name.endswith(".yaml"):
        text = "\n".join(yaml.safe_load(text)["setup_commands"])
    return re.findall(r"\bpip install (.*?)(?= && |$)", re.sub(r"\s*\\\n\s*", " ", text), re.M)


def test_images_of_others_are_pinned_by_digest_and_ours_by_version() -> None:
    images = [s["image"] for s in compose()["services"].values()]
    images += [container["image"] for _, pod in pods() for container in pod["spec"]["containers"]]
    images += [i for i in re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.M) if "$" not in i]
    ours = rf"geovlm-ray:{re.escape(__version__)}-[cg]pu"
    assert not [i for i in images if not re.fullmatch(rf"{ours}|[a-z/]+:v?\d+\.\d+\S*@sha256:[0-9a-f]{{64}}", i)]


def test_no_other_image_is_pulled_to_build_ours() -> None:
    assert not re.search(r"^# *syntax *=|\bfrom=", (DEPLOY / "Dockerfile").read_text(), re.M | re.I)


@pytest.mark.parametrize("name", ["cpu", "dev", "docs", "gpu", "uv"])
def test_every_requirement_has_hashes(name: str) -> None:
    text = (TOP / "requirements" / f"{name}.txt").read_text()
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split()
        assert re.fullmatch(r"[a-z0-9.-]+==\S+", requirement)
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), requirement


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_install_the_requirements_alone(name: str) -> None:
    commands = installations(name)
    assert len(commands) >= 2
    assert all("requirements/" in command for command in commands)


@pytest.mark.parametrize("name", ["README.md", *SCRIPTS])
def test_what_builds_a_package_is_pinned_too(name: str) -> None:
    commands = [command for command in installations(name) if "requirements/" in command]
    assert any("requirements/uv.txt" in command for command in commands)
    for command in (command for command in commands if "requirements/uv.txt" not in command):
        assert re.search(r"--require-build-hashes (-b|--build-constraints) \S*requirements/\S+\.txt", command), command
