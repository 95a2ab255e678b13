"""Speed and memory of conversion, reading in training order and image decoding, against plain loops.

``python -m benchmarks.data [--json OUT] [--records 1000000]``. Source records in GeoChat's conversation format and
images are synthetic. Contenders are interleaved; the shortest wall-clock time of each counts. The plain loops are what
a simple script would do: ``json`` and a list of dictionaries for records, Pillow for images.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import Figure, at_least, at_most, parser, publish, seconds
from benchmarks.data_process import READ, convert_source
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.image_cache import ImageCache
from geovlm_ray.data.resolution import Resolution, show
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.sources import open_stream

ROUNDS = 3
SMOKE_RECORDS = 3_000
IMAGES = 64
SIDE = 448
MEMORY_GB = 1.0
PLACES = ("left", "right", "top", "bottom", "middle")
THINGS = ("ship", "plane", "storage tank", "tennis court", "harbor", "bridge")


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--records", type=int, default=1_000_000, help="records of the source (default: 1000000)")
    options = arguments.parse_args()
    records, rounds = (SMOKE_RECORDS, 1) if options.smoke else (options.records, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as name:
        folder = Path(name)
        source = write_source(folder / "source.jsonl", records)
        figures = [
            *conversion(source, folder, records, rounds),
            *reading(source, folder, rounds),
            *images(folder, rounds),
        ]
    return publish("data", figures, options, records=records, image_side=SIDE)


def write_source(path: Path, n: int) -> Path:
    """Write a conversation file of n records: alternating referred objects, region captions and questions."""
    rng = random.Random(0)
    with path.open("w") as file:
        for i in range(n):
            file.write(json.dumps(conversation(i, rng)) + "\n")
    return path


def conversation(i: int, rng: random.Random) -> dict:
    """One record in the format of GeoChat-Instruct."""
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    x, y = rng.randint(0, 80), rng.randint(0, 80)
    box = f"{{<{x}><{y}><{x + rng.randint(2, 20)}><{y + rng.randint(2, 20)}>|<{rng.randint(0, 90)}>}}"
    question, answer = (
        (f"[refer] Give me the location of <p> 1 {thing} at the {place} </p>", box),
        (f"[identify] what is this {box}", f"1 {thing} at the {place}"),
        (f"Is there a {thing}?\nAnswer the question using a single word or phrase.", rng.choice(("Yes", "No"))),
    )[i % 3]
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": f"{i:07d}", "image": f"P{i % 5000:04d}.png", "conversations": turns}


def conversion(source: Path, folder: Path, n: int, rounds: int) -> list[Figure]:
    """Records per second of the conversion with one worker and with all cores, and of a plain loop; peak memory."""
    ours, plain = [], []
    small = write_source(folder / "small.jsonl", min(n, 100_000))
    count = min(n, 100_000)
    for _ in range(rounds):
        ours.append(seconds(lambda: convert_source(small, folder / "one", 1)))
        plain.append(seconds(lambda: plain_conversion(small, folder / "plain.parquet")))
    parallel_s, memory = in_process("convert", source, folder / "whole")
    return [
        Figure("conversion, 1 process, records/s", count / min(ours)),
        Figure("conversion, plain loop, records/s", count / min(plain)),
        Figure("conversion, times the plain loop", min(plain) / min(ours)),
        at_least(f"conversion of {n:,} records, {os.cpu_count()} processes, records/s", n / parallel_s, 20_000),
        at_most(f"conversion of {n:,} records, peak memory of all processes, GB", memory, MEMORY_GB),
    ]


def plain_conversion(source: Path, out: Path) -> None:
    """Baseline: each line as a dictionary, boxes by regular expression, one table at the end."""
    rows = []
    for line in source.open():
        record = json.loads(line)
        question, answer = (turn["value"] for turn in record["conversations"])
        boxes = [list(map(float, re.findall(r"<(-?\d+)>", b))) for b in re.findall(r"\{.*?\}", answer)]
        question = question.replace("<image>", "").strip()
        rows.append({**record, "question": question, "answer": answer, "boxes": boxes})
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd")


def batches(sampler: PromptSampler, steps: range) -> list[list[Prompt]]:
    """The batches of prompts of some steps."""
    return [sampler.batch(step) for step in steps]


def reading(source: Path, folder: Path, rounds: int) -> list[Figure]:
    """Records per second in training order of the sampler, with its peak memory, and of a loop of seeks."""
    opened, memory = in_process("read", folder / "whole", folder)
    sampler = PromptSampler(open_stream(DataConfig(source="parquet", path=str(folder / "whole"))), DataConfig(), 100)
    offsets = line_offsets(source)
    ours, plain = [], []
    for r in range(rounds):
        steps = range(r * READ // 100, (r + 1) * READ // 100)
        ours.append(seconds(partial(batches, sampler, steps)))
        plain.append(seconds(partial(plain_reading, source, offsets, seed=r)))
    return [
        Figure("opening the converted records, s", opened),
        Figure("reading in training order, records/s", READ / min(ours)),
        Figure("reading in training order, plain loop, records/s", READ / min(plain)),
        Figure("reading in training order, times the plain loop", min(plain) / min(ours)),
        at_most("reading, peak memory, GB", memory, MEMORY_GB),
    ]


def line_offsets(path: Path) -> np.ndarray:
    """Byte offset of each line of a file."""
    with path.open("rb") as file:
        return np.cumsum([0, *map(len, file)])[:-1]


def plain_reading(source: Path, offsets: np.ndarray, seed: int) -> None:
    """Baseline: read and parse lines in random order."""
    with source.open("rb") as file:
        for i in np.random.default_rng(seed).permutation(len(offsets))[:READ]:
            file.seek(offsets[i])
            json.loads(file.readline())


def images(folder: Path, rounds: int) -> list[Figure]:
    """Images per second, decoded and resized to RGB model inputs: uncached, from the cache, and with Pillow only."""
    paths = list(write_images(folder / "images"))
    cache = ImageCache(folder / "cache", 2**30)
    size = Resolution("fixed", SIDE, 28, 28 * 28, SIDE * SIDE, 1)
    first, again, plain = [], [], []
    for r in range(rounds):
        for path in paths:
            os.utime(path, (r, r))  # A new modification time invalidates the cached copy.
        first.append(seconds(lambda: [cached_image(p, size, cache) for p in paths]))
        again.append(seconds(lambda: [cached_image(p, size, cache) for p in paths]))
        plain.append(seconds(lambda: [plain_image(p) for p in paths]))
    return [
        Figure("images decoded and resized, first seen, images/s", IMAGES / min(first)),
        Figure("images decoded and resized, from the cache, images/s", IMAGES / min(again)),
        Figure("images decoded and resized, plain loop, images/s", IMAGES / min(plain)),
        Figure("images first seen, times the plain loop", min(plain) / min(first)),
        Figure("images from the cache, times the plain loop", min(plain) / min(again)),
    ]


def write_images(folder: Path) -> Iterator[Path]:
    """Write random JPEGs of 800 x 800 pixels, the size of a DOTA crop."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
        path = folder / f"{i}.jpg"
        coarse.resize((800, 800), Image.Resampling.BICUBIC).save(path, quality=90)
        yield path


def cached_image(path: Path, size: Resolution, cache: ImageCache) -> Image.Image:
    """Load an image as training does."""
    pixels = cache.get(str(path), repr(size), lambda: show(str(path), PixelSettings(), size)[0])
    return Image.fromarray(pixels)


def plain_image(path: Path) -> Image.Image:
    """Baseline: load an image with Pillow."""
    return Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def in_process(task: str, path: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak memory in GB, including child processes, of a task in a separate process."""
    command = [sys.executable, "-m", "benchmarks.data_process", task, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    duration, memory = map(float, done.stdout.split())
    return duration, memory


if __name__ == "__main__":
    sys.exit(main())
