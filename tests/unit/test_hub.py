"""What of a folder is published on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.core.hub import Publication


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with a link to another of its files and a hidden one out of it."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "a.png").write_bytes(b"12")
    (data / "images" / "b.png").symlink_to("a.png")
    (tmp_path / "secret").write_text("secret")
    (data / ".cache").symlink_to(tmp_path / "secret")
    return data


def test_links_inside_the_folder_are_published(folder: Path) -> None:
    assert Publication(folder, "a/b", "dataset").files == {"images/a.png": 2, "images/b.png": 2}


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "c.png").symlink_to(tmp_path / "secret")
    with pytest.raises(
        DataError, match=r"images/c\.png: expected a file of the folder, found a symbolic link to .*secret"
    ):
        Publication(folder, "a/b", "dataset").push(private=True)
    assert Publication(folder, "a/b", "dataset", left_out={"images/c.png"}).files
    assert Publication(folder, "a/b", "dataset", {"images/c.png": b"1"}).files["images/c.png"] == 1


def test_a_hub_that_cannot_be_reached_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    with pytest.raises(RunError, match=r"--push a/b: expected the Hub to accept .*found: Name or service not known"):
        Publication(folder, "a/b", "dataset").push(private=True)
