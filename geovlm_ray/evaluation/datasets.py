"""Convert the sources of an evaluation once, and detect when a source has changed under existing predictions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import xxhash

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.data.convert import CARD, Counts, MetadataOverrides, convert
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.tasks import TASKS

OnProgress = Callable[[int, str], None]
"""Receives a count and the text that follows it on the progress line."""
FOLDER = "data"
IMAGE_SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Files that are fingerprinted by name only, because there may be hundreds of thousands."""


def convert_once(
    name: str, reader: str, options: Mapping[str, str], data: Path, out: Path, on_progress: OnProgress
) -> Path:
    """Folder of a dataset's shards: ``data`` itself if it is converted, else a conversion of it below ``out``.

    A source that has changed is converted again, unless ``out`` already has predictions for it, for benchmarks
    ``name`` and ``name-TASK``.

    Raises:
        DataError: the source cannot be read, has no record, or has changed since predictions were generated for it.
    """

    def report(counts: Counts) -> None:
        on_progress(counts.records, f"{data.name} records converted")

    folder, fingerprint_file = out / FOLDER / name, out / FOLDER / f"{name}.source.json"
    fingerprint = {"fingerprint": _fingerprint(data)}
    if fingerprint_file.is_file() and read_object(fingerprint_file) != fingerprint:
        if _has_predictions(name, out):
            raise DataError(
                f"{data}: expected the data of the predictions in {out}, found that it has changed since; restore it, "
                "or evaluate into another folder"
            )
        shutil.rmtree(folder, ignore_errors=True)
    if (data / CARD).is_file():
        folder = data
    elif not (folder / CARD).is_file():
        source = Source(data, data if data.is_dir() else data.parent, dict(options))
        counts = convert(reader, source, folder, MetadataOverrides(), workers=1, on_progress=report)
        if not counts.records:
            quarantined = read_quarantine(folder, "convert")
            first = next((f": {q.source_file}, record {q.source_record}: {q.reason}" for q in quarantined), "")
            shutil.rmtree(folder)
            raise DataError(
                f"{data}: expected records in a format of `geovlm-ray data convert {reader}`, found none{first}"
            )
    fingerprint_file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(fingerprint_file, json.dumps(fingerprint) + "\n")
    return folder


def left_out(folder: Path) -> str | None:
    """How many source entries conversion skipped and quarantined, as text; None if it converted all of them."""
    card = read_object(folder / CARD)
    skipped, quarantined = card.get("passed_over", 0), card.get("set_aside", 0)
    where = f" (reasons in {folder / QUARANTINE})" if quarantined else ""
    text = f"skipped {skipped:,} source entries without a question and reference, quarantined {quarantined:,}{where}"
    return text if skipped or quarantined else None


def _fingerprint(data: Path) -> str:
    """Digest of all file names, and of the sizes and modification times of all files except images."""
    digest = xxhash.xxh3_64()
    files = [data] if data.is_file() else sorted(Path(top) / name for top, _, names in os.walk(data) for name in names)
    for file in files:
        digest.update(str(file.relative_to(data)).encode("utf-8", "surrogateescape"))
        if file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file():
            digest.update(f"{file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _has_predictions(name: str, out: Path) -> bool:
    """Whether an evaluation folder, or that of any evaluated step of a run, has predictions for a dataset."""
    benchmarks = {name, *(f"{name}-{task}" for task in TASKS)}
    files = (*out.glob("predictions/*"), *out.glob("step-*/predictions/*"))
    return any(file.name.split(".")[0] in benchmarks for file in files)
