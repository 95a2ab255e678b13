"""From a source in a format of the field to a folder of Parquet shards.

The main process reads units in a stream and deals them out; worker processes convert them and write a shard each.
What cannot be converted goes to ``quarantine.parquet`` with its reason, never away. The folder appears at its name
when it is complete.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically, writing
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Converted, Source, Unit
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.quarantine import SetAside, write_quarantine
from geovlm_ray.data.table import VERSION, Row, to_table

UNITS_PER_SHARD = 5_000
UNITS_WITH_IMAGES_PER_SHARD = 200
CARD = "dataset.json"
UNREADABLE = (DataError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, OSError)
"""What hostile content makes a reader raise, beyond its own DataError."""


@dataclass(frozen=True)
class MetadataOverrides:
    """What the user says of the whole source; None and empty leave what the format finds."""

    dataset: str | None = None
    split: str | None = None
    licence: str | None = None


@dataclass
class Counts:
    """What became of the units so far."""

    records: int = 0
    parts: int = 0
    passed_over: int = 0
    set_aside: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def bad_fraction(self) -> float:
        """What was set aside over all entries of the source that should be in records."""
        return self.set_aside / max(self.set_aside + self.parts, 1)

    def add(self, other: Counts) -> None:
        """Take in the counts of a shard."""
        self.records += other.records
        self.parts += other.parts
        self.passed_over += other.passed_over
        self.set_aside += other.set_aside
        self.tasks += other.tasks
        self.splits += other.splits
        self.reasons += other.reasons


@dataclass(frozen=True)
class _Job:
    """A shard to make."""

    format: str
    source: Source
    labels: MetadataOverrides
    folder: Path
    number: int
    units: Sequence[Unit]


def convert(
    name: str,
    source: Source,
    out: Path,
    labels: MetadataOverrides,
    *,
    workers: int,
    on_progress: Callable[[Counts], None],
) -> Counts:
    """Convert a source into the folder ``out``, which must not hold anything yet.

    Raises:
        DataError: the source is absent, holds nothing of the format, or ``out`` is taken or cannot be written.
        RunError: a worker process died.
    """
    if not source.path.exists():
        raise DataError(f"{source.path}: expected a file or folder, found none")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected no such folder or an empty one, found something in it; remove it first")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts = Counts()
    try:
        with write_quarantine(partial) as quarantine, Workers(workers) as pool:
            for done, aside in pool.in_order(_make_shard, _jobs(name, source, labels, partial)):
                counts.add(done)
                quarantine(aside)
                on_progress(counts)
        write_atomically(partial / CARD, json.dumps(_card(name, source, counts), indent=2, ensure_ascii=False) + "\n")
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _jobs(name: str, source: Source, labels: MetadataOverrides, folder: Path) -> Iterator[_Job]:
    form = FORMATS[name]
    size = UNITS_WITH_IMAGES_PER_SHARD if form.stores_images_of(source) else UNITS_PER_SHARD
    units = form.units(source)
    for number in itertools.count():
        with _without_collections():
            batch = list(itertools.islice(units, size))
        if not batch:
            return
        yield _Job(name, source, labels, folder, number, batch)


def _make_shard(job: _Job) -> tuple[Counts, list[SetAside]]:
    """Convert a job's units and write what came of them; the counts, and what was set aside."""
    with _without_collections():
        return _shard(job)


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collections: with a shard's units or rows alive they take a third of the time and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _shard(job: _Job) -> tuple[Counts, list[SetAside]]:
    counts, aside, rows = Counts(), [], []
    for unit in job.units:
        try:
            converted, bad, files = _convert_unit(unit, job)
        except UNREADABLE as error:
            reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            aside.append(SetAside.of_unit(unit, reason))
            continue
        for name, content in files.items():
            path = job.folder / name
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        counts.passed_over += not converted and not bad
        rows += converted
        aside += bad
    kept, table, broken = _writable(rows)
    aside += broken
    if kept:
        path = job.folder / f"part-{job.number:05d}.parquet"
        with writing(path):
            pq.write_table(table, path, compression="zstd")
    counts.records = len(kept)
    counts.parts = sum(row.parts for row in kept)
    counts.set_aside = len(aside)
    counts.tasks.update(row.example.task for row in kept)
    counts.splits.update(row.example.split for row in kept)
    counts.reasons.update(item.kind for item in aside)
    return counts, aside


def _convert_unit(unit: Unit, job: _Job) -> tuple[list[Row], list[SetAside], dict[str, bytes]]:
    """The rows of a unit, labelled, its bad parts, and the files that have to be written for the rows."""
    if unit.problem is not None:
        raise DataError(unit.problem)
    rows, bad = [], []
    files: dict[str, bytes] = {}
    for item in FORMATS[job.format].convert(unit, job.source):
        if isinstance(item, Unit):
            bad.append(SetAside.of_unit(item, str(item.problem)))
            continue
        row = item.row if isinstance(item, Converted) else item
        rows.append(_labelled(row, unit, job.labels))
        if isinstance(item, Converted):
            files.update(item.files)
    return rows, bad, files


def _labelled(row: Row, unit: Unit, labels: MetadataOverrides) -> Row:
    example = row.example
    if labels.dataset is not None or labels.split is not None:
        example = replace(
            example,
            dataset=example.dataset if labels.dataset is None else labels.dataset,
            split=example.split if labels.split is None else labels.split,
        )
    return replace(
        row,
        example=example,
        source_file=unit.file,
        source_record=unit.number,
        licence=row.licence if labels.licence is None else labels.licence,
    )


def _writable(rows: list[Row]) -> tuple[list[Row], pa.Table, list[SetAside]]:
    """Rows that Parquet can hold, as they are and as a table, and those whose text or numbers it cannot."""
    try:
        return rows, to_table(rows), []
    except (pa.ArrowException, UnicodeError, ValueError, OverflowError, TypeError):
        pass
    kept, broken = [], []
    for row in rows:
        try:
            to_table([row])
            kept.append(row)
        except (pa.ArrowException, UnicodeError, ValueError, OverflowError, TypeError) as error:
            broken.append(SetAside.of_row(row, f"a value that Parquet cannot hold: {error}"))
    return kept, to_table(kept), broken


def _card(name: str, source: Source, counts: Counts) -> dict[str, Any]:
    """What a reader needs to know of a converted dataset, beside its records."""
    form = FORMATS[name]
    return {
        "schema_version": VERSION,
        "format": name,
        "source": str(source.path),
        "image_root": "." if form.stores_images_of(source) else str(source.images.resolve()),
        "options": dict(source.options),
        "records": counts.records,
        "set_aside": counts.set_aside,
        "passed_over": counts.passed_over,
        "tasks": dict(counts.tasks),
        "splits": dict(counts.splits),
        "header": dict(form.header(source)) if form.header else {},
    }
