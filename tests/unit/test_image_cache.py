"""Image cache: decodes each image once per node, within a size limit; cache errors never fail a run."""

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
from geovlm_ray.data import image_cache
from geovlm_ray.data.image_cache import ImageCache, open_cache

PIXELS = np.arange(2 * 10 * 10 * 3, dtype=np.uint8).reshape(2, 10, 10, 3)


class CountingDecoder:
    """Returns an image array, and counts its calls in a file."""

    def __init__(self, folder: Path, seconds: float = 0.0, pixels: np.ndarray = PIXELS) -> None:
        self.log = folder / "calls"
        self.seconds = seconds
        self.pixels = pixels

    def __call__(self) -> np.ndarray:
        with self.log.open("a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return self.pixels

    @property
    def count(self) -> int:
        """Number of calls."""
        return len(self.log.read_text()) if self.log.exists() else 0


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Path of an image file."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    """A cache with a limit of 1 MiB."""
    return ImageCache(tmp_path / "cache", 2**20)


def test_image_is_decoded_once_per_file_and_recipe(image: str, cache: ImageCache, tmp_path: Path) -> None:
    decode = CountingDecoder(tmp_path)
    for instance in (cache, ImageCache(cache.folder, cache.limit)):
        for reference in (image, f"{tmp_path}//image.png", "scene:vqa:0:0:0"):
            assert np.array_equal(instance.get(reference, "a", decode), PIXELS)
    assert decode.count == 2
    cache.get(image, "b", decode)
    assert decode.count == 3


def test_modified_file_is_decoded_again(image: str, cache: ImageCache, tmp_path: Path) -> None:
    decode = CountingDecoder(tmp_path)
    cache.get(image, "a", decode)
    os.utime(image, ns=(0, 0))
    cache.get(image, "a", decode)
    assert decode.count == 2


def test_concurrent_processes_decode_an_image_once(image: str, cache: ImageCache, tmp_path: Path) -> None:
    decode = CountingDecoder(tmp_path, seconds=0.5)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=cache.get, args=(image, "a", decode)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert decode.count == 1
    assert np.array_equal(cache.get(image, "a", decode), PIXELS)
    assert decode.count == 1


def test_size_limit_holds_and_least_recently_used_entries_are_evicted(
    image: str, cache: ImageCache, tmp_path: Path
) -> None:
    decode = CountingDecoder(tmp_path, pixels=np.zeros((1, 100, 100, 3), np.uint8))
    for k in range(100):
        cache.get(image, f"recipe {k}", decode)
        cache.get(image, "recipe 0", decode)
        assert sum(p.stat().st_size for p in cache.folder.iterdir()) <= cache.limit
    assert len(list(cache.folder.glob("*.npy"))) >= 25
    calls = decode.count
    cache.get(image, "recipe 0", decode)
    cache.get(image, "recipe 99", decode)
    assert decode.count == calls == 100
    cache.get(image, "recipe 1", decode)
    assert decode.count == 101


def test_image_larger_than_the_limit_is_not_cached(image: str, tmp_path: Path) -> None:
    cache, decode = (
        ImageCache(tmp_path / "cache", 1000),
        CountingDecoder(tmp_path, pixels=np.zeros((1, 100, 100, 3), np.uint8)),
    )
    assert [cache.get(image, "a", decode).shape for _ in range(2)] == [(1, 100, 100, 3)] * 2
    assert decode.count == 2
    assert not list(cache.folder.glob("*.npy*"))


def test_partial_files_of_killed_processes_are_evicted(image: str, cache: ImageCache, tmp_path: Path) -> None:
    cache.folder.mkdir(mode=0o700)
    for k in range(3):
        (cache.folder / f"{k}.npy.123.partial").write_bytes(bytes(400_000))
        os.utime(cache.folder / f"{k}.npy.123.partial", (k, k))
    cache.get(image, "a", CountingDecoder(tmp_path))
    assert sorted(p.name[0] for p in cache.folder.glob("*.partial")) == ["1", "2"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', "])
def test_corrupt_entry_is_decoded_again(content: bytes, image: str, cache: ImageCache, tmp_path: Path) -> None:
    decode = CountingDecoder(tmp_path)
    cache.get(image, "a", decode)
    next(cache.folder.glob("*.npy")).write_bytes(content)
    assert np.array_equal(cache.get(image, "a", decode), PIXELS)
    cache.get(image, "a", decode)
    assert decode.count == 2


@pytest.mark.parametrize("problem", ["file", "others may read", "link", "no parent"])
def test_unusable_folder_is_logged_once(
    problem: str, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, decode = tmp_path / "cache", CountingDecoder(tmp_path)
    if problem == "file":
        folder.touch()
    elif problem == "others may read":
        folder.mkdir(mode=0o755)
    elif problem == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder = tmp_path / "absent" / "cache"
    cache = ImageCache(folder, 2**20)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(cache.get(image, "a", decode), PIXELS)
    assert decode.count == 3
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from geovlm_ray.data.image_cache import ImageCache
logging.basicConfig(level=logging.WARNING)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
cache, pixels = ImageCache(Path(sys.argv[2]), 2**20), np.ones((1, 100, 100, 3), np.uint8)
for k in range(3):
    assert np.array_equal(cache.get(sys.argv[1], str(k), lambda: pixels), pixels)
"""


def test_full_disk_is_logged_once(image: str, cache: ImageCache) -> None:
    command = [sys.executable, "-c", FULL_DISK, image, str(cache.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1
    assert not list(cache.folder.glob("*.npy*"))


def test_decoding_errors_propagate_and_are_not_cached(image: str, cache: ImageCache, tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise DataError("no image")

    for _ in range(2):
        with pytest.raises(DataError, match="no image"):
            cache.get(image, "a", broken)
    assert np.array_equal(cache.get(image, "a", CountingDecoder(tmp_path)), PIXELS)
    with pytest.raises(DataError, match=r"absent\.png"):
        cache.get(str(tmp_path / "absent.png"), "a", broken)


def test_cache_is_private_to_the_user_and_can_be_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert open_cache(0) is None
    cache = open_cache(0.5)
    assert cache is not None
    assert cache.limit == 2**29
    cache.get("scene:vqa:0:0:0", "a", lambda: PIXELS)
    assert (tmp_path / f"geovlm-ray-images-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_scene_is_drawn_again_once_the_drawing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, other = ImageCache(tmp_path, 2**30), PIXELS + 1
    for expected, version in ((PIXELS, "a"), (other, "b"), (PIXELS, "a")):
        monkeypatch.setattr(image_cache, "drawing_version", lambda version=version: version)
        found = cache.get("scene:vqa:0:0:0", "recipe", lambda expected=expected: expected)
        assert np.array_equal(found, expected)
