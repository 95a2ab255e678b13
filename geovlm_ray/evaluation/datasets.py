"""Datasets of an evaluation, converted once below its folder; the answers there are all of the same records."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import xxhash

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.schema import TASK_NAMES
from geovlm_ray.data.convert import CARD, Counts, MetadataOverrides, convert
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine

FOLDER = "data"
PICTURES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Of these files only the names are looked at: there may be hundreds of thousands."""


def converted_once(
    name: str,
    reader: str,
    options: Mapping[str, str],
    data: Path,
    out: Path,
    on_progress: Callable[[Counts], None],
) -> Path:
    """The folder of shards of a dataset: ``data`` itself, or what a source there is converted to below ``out``.

    A source that has changed is converted again where nothing in ``out`` answers to it yet.

    Args:
        name: of the dataset; answers to it are those of benchmarks ``name`` or ``name-TASK``.
        on_progress: is told how many records are converted.

    Raises:
        DataError: it cannot be read, holds no record, or has changed since answers to it were drawn.
    """
    folder, mark = out / FOLDER / name, out / FOLDER / f"{name}.source.json"
    now = {"fingerprint": _fingerprint(data)}
    if mark.is_file() and read_object(mark) != now:
        if _is_answered(name, out):
            raise DataError(
                f"{data}: expected it as it was when the answers in {out} were drawn, found that it has changed; put "
                "it back, or evaluate into another folder"
            )
        shutil.rmtree(folder, ignore_errors=True)
    if (data / CARD).is_file():
        folder = data
    elif not (folder / CARD).is_file():
        source = Source(data, data if data.is_dir() else data.parent, dict(options))
        counts = convert(reader, source, folder, MetadataOverrides(), workers=1, on_progress=on_progress)
        if not counts.records:
            aside = read_quarantine(folder, "convert")
            first = next((f": {a.source_file}, record {a.source_record}: {a.reason}" for a in aside), "")
            shutil.rmtree(folder)
            raise DataError(f"{data}: expected what `geovlm-ray data convert {reader}` reads, found no record{first}")
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, json.dumps(now) + "\n")
    return folder


def left_out(folder: Path) -> str | None:
    """In words, how much of its source a converted dataset lacks; None where it has everything."""
    card = read_object(folder / CARD)
    passed, aside = card.get("passed_over", 0), card.get("set_aside", 0)
    where = f", for the reasons in {folder / QUARANTINE}" if aside else ""
    text = f"{passed:,} entries of the source hold no question with a reference, {aside:,} were set aside{where}"
    return text if passed or aside else None


def _fingerprint(data: Path) -> str:
    """A digest of the names of all files, and of the sizes and times of those that are no pictures."""
    digest = xxhash.xxh3_64()
    files = [data] if data.is_file() else sorted(Path(top) / name for top, _, names in os.walk(data) for name in names)
    for file in files:
        digest.update(str(file.relative_to(data)).encode("utf-8", "surrogateescape"))
        if file.suffix.lower() not in PICTURES and file.is_file():
            digest.update(f"{file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _is_answered(name: str, out: Path) -> bool:
    """Whether there are answers to a dataset in an evaluation's folder, or in those of a run's steps."""
    benchmarks = {name, *(f"{name}-{task}" for task in TASK_NAMES)}
    answers = (*out.glob("predictions/*"), *out.glob("step-*/predictions/*"))
    return any(answer.name.split(".")[0] in benchmarks for answer in answers)
