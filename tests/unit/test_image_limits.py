"""Small files cannot occupy much memory or time: each hostile image gets one error, before it is decoded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.pixels import PixelSettings, to_rgb
from geovlm_ray.data.images import image_header, load_image
from tests.unit.hostile_images import hostile_images, strips

MAX_PEAK_MB = 1000
MAX_SECONDS = 5
LOAD = """
import json, sys, time
from pathlib import Path
from geovlm_ray.core.errors import DataError
from geovlm_ray.data.images import load_image

for path in sys.argv[1:]:
    start = time.perf_counter()
    try:
        load_image(path)
        error = None
    except DataError as found:
        error = str(found)
    megabytes = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
    print(json.dumps([error, time.perf_counter() - start, megabytes]), flush=True)
"""


def test_hostile_images_are_rejected_in_little_memory_and_time(tmp_path: Path) -> None:
    hostile = hostile_images()
    for name, (content, _) in hostile.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-W", "error", "-c", LOAD, *(str(tmp_path / name) for name in hostile)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert (len(results), run.stderr) == (len(hostile), "")
    for (name, (_, reason)), (error, seconds, megabytes) in zip(hostile.items(), results, strict=True):
        assert error, name
        assert re.match(rf"image {re.escape(str(tmp_path / name))}: .*{reason}", error), error
        assert "\n" not in error
        assert seconds < MAX_SECONDS, name
        assert megabytes < MAX_PEAK_MB, name


@pytest.mark.parametrize("name", ["large.png", "large.webp", "large.tif"])
def test_header_states_the_decoded_size(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / name)
    size = image_header(str(tmp_path / name)).decoded_bytes
    assert size == 300 * 200 * (8 if name == "large.webp" else 4)
    assert image_header(str(tmp_path / name), limit=size).decoded_bytes == size
    message = rf"image .*{name}: expected at most 0 MiB when decoded, found 0 MiB \(300 x 200 pixels\)"
    with pytest.raises(DataError, match=message):
        image_header(str(tmp_path / name), limit=size - 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif", "a.png"])
def test_file_larger_than_any_decoded_image_is_refused(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / name, progressive=True)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(20 * 2**30)
    for read in (load_image, image_header):
        with pytest.raises(DataError, match=rf"image .*{name}: .*a file of 20,480 MiB, more than 512 MiB"):
            read(str(tmp_path / name))


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000", "lerc"])
def test_tiff_chunks_that_are_files_are_decoded(compression: str, tmp_path: Path) -> None:
    values = np.dstack([np.add.outer(np.arange(96), np.arange(80)).astype(np.uint8)] * 3)
    options = {"jpeg2000": {"level": 0}, "webp": {"level": -1}, "jpeg": {"level": 95}, "lerc": {}}[compression]
    tifffile.imwrite(
        *(tmp_path / "a.tif", values),
        **{"photometric": "rgb", "tile": (32, 32), "compression": compression, "compressionargs": options},
    )
    found = np.asarray(load_image(str(tmp_path / "a.tif"))).astype(int)
    assert abs(found - to_rgb(values, PixelSettings())).max() <= (12 if compression == "jpeg" else 0)


def test_tiff_chunk_of_several_lerc_blobs_is_refused(tmp_path: Path) -> None:
    blob = imagecodecs.lerc_encode(np.zeros((16, 16), np.float32))
    (tmp_path / "a.tif").write_bytes(strips(16, 16, blob * 5, bits=32, sample_format=3, compression=34887))
    with pytest.raises(DataError, match=r"one LERC blob in a TIFF chunk, found \d+ bytes with a blob of \d+ bytes"):
        load_image(str(tmp_path / "a.tif"))
    (tmp_path / "a.tif").write_bytes(strips(16, 16, blob, bits=32, sample_format=3, compression=34887))
    assert load_image(str(tmp_path / "a.tif")).size == (16, 16)
