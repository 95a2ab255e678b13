"""Convert the sources of an evaluation once, and again when they have changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object
from geovlm_ray.data.convert import CARD, Counts, MetadataOverrides, convert
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.quarantine import FILE as QUARANTINE
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.evaluation.contents import benchmark_inputs
from geovlm_ray.tasks import TASKS

OnProgress = Callable[[int, str], None]
"""Receives a count and the text that follows it on the progress line."""
FOLDER = "data"


def convert_once(
    name: str, reader: str, options: Mapping[str, str], data: Path, out: Path, on_progress: OnProgress
) -> Path:
    """Folder of a dataset's shards: ``data`` itself if it is converted, else a conversion of it below ``out``.

    A source that has changed since is converted again.

    Raises:
        DataError: the source cannot be read or has no record.
    """

    def report(counts: Counts) -> None:
        on_progress(counts.records, f"{data.name} records converted")

    if (data / CARD).is_file():
        return data
    folder, record = out / FOLDER / name, ContentRecord(out / FOLDER / f"{name}.source.json")
    found = record.measure(benchmark_inputs({name: data}))
    if record.contents != found:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / CARD).is_file():
        source = Source(data, data if data.is_dir() else data.parent, dict(options))
        counts = convert(reader, source, folder, MetadataOverrides(), workers=1, on_progress=report)
        if not counts.records:
            quarantined = read_quarantine(folder, "convert")
            first = next((f": {q.source_file}, record {q.source_record}: {q.reason}" for q in quarantined), "")
            shutil.rmtree(folder)
            raise DataError(
                f"{data}: expected records in a format of `geovlm-ray data convert {reader}`, found none{first}"
            )
    record.contents.update(found)
    record.file.parent.mkdir(parents=True, exist_ok=True)
    record.write()
    return folder


def left_out(folder: Path) -> str | None:
    """How many source entries conversion skipped and quarantined, as text; None if it converted all of them."""
    card = read_object(folder / CARD)
    skipped, quarantined = card.get("passed_over", 0), card.get("set_aside", 0)
    where = f" (reasons in {folder / QUARANTINE})" if quarantined else ""
    text = f"skipped {skipped:,} source entries without a question and reference, quarantined {quarantined:,}{where}"
    return text if skipped or quarantined else None


def has_predictions(name: str, out: Path) -> bool:
    """Whether an evaluation folder, or that of any evaluated step of a run, has predictions for a dataset."""
    benchmarks = {name, *(f"{name}-{task}" for task in TASKS)}
    files = (*out.glob("predictions/*"), *out.glob("step-*/predictions/*"))
    return any(file.name.split(".")[0] in benchmarks for file in files)
