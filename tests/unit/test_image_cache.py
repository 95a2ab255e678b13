"""Pictures are decoded once on a node, within a bound, and no trouble with the cache stops a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.image_cache import ImageCache, open_cache

PICTURE = np.arange(2 * 10 * 10 * 3, dtype=np.uint8).reshape(2, 10, 10, 3)


class Maker:
    """Makes a picture, and counts in a file how often."""

    def __init__(self, folder: Path, seconds: float = 0.0, picture: np.ndarray = PICTURE) -> None:
        self.log = folder / "made"
        self.seconds = seconds
        self.picture = picture

    def __call__(self) -> np.ndarray:
        with self.log.open("a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return self.picture

    @property
    def count(self) -> int:
        """How many pictures were made."""
        return len(self.log.read_text()) if self.log.exists() else 0


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A file."""
    Image.fromarray(PICTURE[0]).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    """A cache of one MiB."""
    return ImageCache(tmp_path / "cache", 2**20)


def test_a_picture_is_made_once_for_a_file_and_a_recipe(image: str, cache: ImageCache, tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for again in (cache, ImageCache(cache.folder, cache.limit)):
        for reference in (image, f"{tmp_path}//image.png", "scene:vqa:0:0:0"):
            assert np.array_equal(again.get(reference, "a", make), PICTURE)
    assert make.count == 2
    cache.get(image, "b", make)
    assert make.count == 3


def test_a_changed_file_is_read_anew(image: str, cache: ImageCache, tmp_path: Path) -> None:
    make = Maker(tmp_path)
    cache.get(image, "a", make)
    os.utime(image, ns=(0, 0))
    cache.get(image, "a", make)
    assert make.count == 2


def test_processes_wait_for_the_one_that_decodes(image: str, cache: ImageCache, tmp_path: Path) -> None:
    make = Maker(tmp_path, seconds=0.5)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=cache.get, args=(image, "a", make)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert make.count == 1
    assert np.array_equal(cache.get(image, "a", make), PICTURE)
    assert make.count == 1


def test_the_bound_holds_and_what_was_used_last_stays(image: str, cache: ImageCache, tmp_path: Path) -> None:
    make = Maker(tmp_path, picture=np.zeros((1, 100, 100, 3), np.uint8))
    for k in range(100):
        cache.get(image, f"picture {k}", make)
        cache.get(image, "picture 0", make)
        assert sum(p.stat().st_size for p in cache.folder.iterdir()) <= cache.limit
    assert len(list(cache.folder.glob("*.npy"))) >= 25
    made = make.count
    cache.get(image, "picture 0", make)
    cache.get(image, "picture 99", make)
    assert make.count == made == 100
    cache.get(image, "picture 1", make)
    assert make.count == 101


def test_what_is_larger_than_the_bound_is_not_kept(image: str, tmp_path: Path) -> None:
    cache, make = ImageCache(tmp_path / "cache", 1000), Maker(tmp_path, picture=np.zeros((1, 100, 100, 3), np.uint8))
    assert [cache.get(image, "a", make).shape for _ in range(2)] == [(1, 100, 100, 3)] * 2
    assert make.count == 2
    assert not list(cache.folder.glob("*.npy*"))


def test_leftovers_of_killed_processes_are_evicted(image: str, cache: ImageCache, tmp_path: Path) -> None:
    cache.folder.mkdir(mode=0o700)
    for k in range(3):
        (cache.folder / f"{k}.npy.123.partial").write_bytes(bytes(400_000))
        os.utime(cache.folder / f"{k}.npy.123.partial", (k, k))
    cache.get(image, "a", Maker(tmp_path))
    assert sorted(p.name[0] for p in cache.folder.glob("*.partial")) == ["1", "2"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', "])
def test_a_broken_entry_is_made_anew(content: bytes, image: str, cache: ImageCache, tmp_path: Path) -> None:
    make = Maker(tmp_path)
    cache.get(image, "a", make)
    next(cache.folder.glob("*.npy")).write_bytes(content)
    assert np.array_equal(cache.get(image, "a", make), PICTURE)
    cache.get(image, "a", make)
    assert make.count == 2


@pytest.mark.parametrize("trouble", ["file", "others may read", "link", "no parent"])
def test_a_folder_that_cannot_be_used_is_said_once(
    trouble: str, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, make = tmp_path / "cache", Maker(tmp_path)
    if trouble == "file":
        folder.touch()
    elif trouble == "others may read":
        folder.mkdir(mode=0o755)
    elif trouble == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder = tmp_path / "absent" / "cache"
    cache = ImageCache(folder, 2**20)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(cache.get(image, "a", make), PICTURE)
    assert make.count == 3
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from geovlm_ray.data.image_cache import ImageCache
logging.basicConfig(level=logging.WARNING)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
cache, picture = ImageCache(Path(sys.argv[2]), 2**20), np.ones((1, 100, 100, 3), np.uint8)
for k in range(3):
    assert np.array_equal(cache.get(sys.argv[1], str(k), lambda: picture), picture)
"""


def test_a_full_disk_is_said_once(image: str, cache: ImageCache) -> None:
    command = [sys.executable, "-c", FULL_DISK, image, str(cache.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1
    assert not list(cache.folder.glob("*.npy*"))


def test_errors_of_an_image_come_through_and_are_not_kept(image: str, cache: ImageCache, tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise DataError("no picture")

    for _ in range(2):
        with pytest.raises(DataError, match="no picture"):
            cache.get(image, "a", broken)
    assert np.array_equal(cache.get(image, "a", Maker(tmp_path)), PICTURE)
    with pytest.raises(DataError, match=r"absent\.png"):
        cache.get(str(tmp_path / "absent.png"), "a", broken)


def test_the_cache_is_this_users_alone_and_may_be_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert open_cache(0) is None
    cache = open_cache(0.5)
    assert cache is not None
    assert cache.limit == 2**29
    cache.get("scene:vqa:0:0:0", "a", lambda: PICTURE)
    assert (tmp_path / f"geovlm-ray-images-{os.getuid()}").stat().st_mode & 0o777 == 0o700
