"""Conversion of a source dataset into a folder of Parquet shards.

The main process streams units from the source in batches; each worker process converts one batch and writes one shard.
Units that cannot be converted are written to ``quarantine.parquet`` with the reason. The output folder is renamed to
its final name once it is complete.
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

from geovlm_ray.core.errors import UNREADABLE, DataError, reason_of
from geovlm_ray.core.files import write_atomically, writing
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Settled, Source, Unit
from geovlm_ray.data.formats.detect import other_format, refuse_other_format
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.quarantine import QuarantineEntry, write_quarantine
from geovlm_ray.data.table import UNCLEAR, VERSION, Row, to_table

UNITS_PER_SHARD = 5_000
UNITS_WITH_IMAGES_PER_SHARD = 200
CARD = "dataset.json"
EMPTY = "without-objects"
"""Folder of shards of pictures without objects, while a dataset is converted."""
_NOT_STORABLE = (pa.ArrowException, UnicodeError, ValueError, OverflowError, TypeError)


@dataclass(frozen=True)
class MetadataOverrides:
    """Values that replace the metadata of every record; None keeps what the format reads."""

    dataset: str | None = None
    split: str | None = None
    licence: str | None = None


@dataclass
class Counts:
    """Counts of a conversion.

    ``parts`` counts source entries in converted records; ``passed_over`` counts units without a usable record;
    ``set_aside`` counts quarantined entries, ``reasons`` by kind; ``unread`` counts records by key that the format does
    not use. ``incomplete`` counts records that lack objects of their class (`UNCLEAR`), ``absent`` those with an image
    that was not found, of which ``absent_names`` has the first of each shard. ``notes`` say what was decided for the
    whole source.
    """

    records: int = 0
    parts: int = 0
    passed_over: int = 0
    set_aside: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    absent: int = 0
    absent_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bad_fraction(self) -> float:
        """Fraction of quarantined entries among all entries that should be in records."""
        return self.set_aside / max(self.set_aside + self.parts, 1)

    def add(self, other: Counts) -> None:
        """Add the counts of a shard."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class _Job:
    """Input of one output shard; ``images`` is the folder that image paths are relative to."""

    format: str
    source: Source
    overrides: MetadataOverrides
    folder: Path
    number: int
    images: Path
    units: Sequence[Unit]


def convert(
    name: str,
    source: Source,
    out: Path,
    overrides: MetadataOverrides,
    *,
    workers: int,
    on_progress: Callable[[Counts], None],
    more: Callable[[Path], Counts] = lambda _: Counts(),
) -> Counts:
    """Convert a source into the folder ``out``, which must be absent or empty.

    ``more`` may write further shards from those that it finds in the folder, and returns what to add to the counts.

    Raises:
        DataError: The source is absent, has no data of the format or looks like another one, or ``out`` is not empty or
            not writable.
        RunError: A worker process died.
    """
    if not source.path.exists():
        raise DataError(f"{source.path}: expected a file or folder, found none")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected an absent or empty folder, found other content; remove it first")
    refuse_other_format(name, source)
    try:
        counts = _convert_into(out, name, source, overrides, workers=workers, on_progress=on_progress, more=more)
    except DataError as error:
        raise DataError(f"{error}{other_format(name, source)}") from error
    if not counts.records and (hint := other_format(name, source)):
        raise DataError(f"{source.path}: expected {name}, found no record of it{hint}")
    return counts


def _convert_into(
    out: Path,
    name: str,
    source: Source,
    overrides: MetadataOverrides,
    *,
    workers: int,
    on_progress: Callable[[Counts], None],
    more: Callable[[Path], Counts],
) -> Counts:
    settle = FORMATS[name].settle
    settled = settle(source) if settle else Settled()
    source = replace(source, options={**source.options, **settled.options})
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts = Counts(notes=settled.notes)
    try:
        with write_quarantine(partial) as quarantine, Workers(workers) as pool:
            for shard_counts, quarantined in pool.in_order(_write_shard, _jobs(name, source, overrides, partial)):
                counts.add(shard_counts)
                quarantine(quarantined)
                on_progress(counts)
        counts.add(more(partial))
        counts.notes += (*_incompleteness(counts), *_absence(counts, source))
        write_atomically(partial / CARD, json.dumps(_card(name, source, counts), indent=2, ensure_ascii=False) + "\n")
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _jobs(name: str, source: Source, overrides: MetadataOverrides, folder: Path) -> Iterator[_Job]:
    form = FORMATS[name]
    stores_images = form.stores_images(source)
    size = UNITS_WITH_IMAGES_PER_SHARD if stores_images else UNITS_PER_SHARD
    images = folder if stores_images else source.images
    units = form.units(source)
    for number in itertools.count():
        with _gc_disabled():
            batch = list(itertools.islice(units, size))
        if not batch:
            return
        yield _Job(name, source, overrides, folder, number, images, batch)


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable the garbage collector: with a shard's objects alive it takes a third of the time and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_gc_disabled()
def _write_shard(job: _Job) -> tuple[Counts, list[QuarantineEntry]]:
    """Convert a job's units and write the shard; return its counts and quarantined entries."""
    counts, quarantined, rows = Counts(), [], []
    for unit in job.units:
        try:
            converted, bad = _convert_unit(unit, job)
        except UNREADABLE as error:
            quarantined.append(QuarantineEntry.of_unit(unit, reason_of(error)))
            continue
        for name, content in itertools.chain.from_iterable(row.files.items() for row in converted):
            path = job.folder / name
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        counts.passed_over += not bad and all(row.is_empty for row in converted)
        rows += converted
        quarantined += bad
    kept = _write([row for row in rows if not row.is_empty], job.folder, job.number, quarantined)
    _write([row for row in rows if row.is_empty], job.folder / EMPTY, job.number, quarantined)
    counts.records = len(kept)
    counts.parts = sum(row.parts for row in kept)
    counts.set_aside = len(quarantined)
    counts.tasks.update(row.example.task for row in kept)
    counts.splits.update(row.example.split for row in kept)
    counts.reasons.update(item.kind for item in quarantined)
    counts.unread.update(key for row in kept for key in row.unread)
    counts.incomplete = sum(map(_is_incomplete, kept))
    names = {name for row in kept for name in row.example.images}
    absent = {name for name in names if not os.path.exists(job.images / name)}
    if absent:
        missing = [row.example.images for row in kept if not absent.isdisjoint(row.example.images)]
        counts.absent = len(missing)
        counts.absent_names = (next(n for n in missing[0] if n in absent),)
    return counts, quarantined


def _write(rows: list[Row], folder: Path, number: int, quarantined: list[QuarantineEntry]) -> list[Row]:
    """Write a shard of the rows that can be stored, and return them; the others are added to ``quarantined``."""
    kept, table, rejected = _writable(rows)
    quarantined += rejected
    if kept:
        path = folder / f"part-{number:05d}.parquet"
        with writing(path):
            folder.mkdir(exist_ok=True)
            with path.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
    return kept


def _convert_unit(unit: Unit, job: _Job) -> tuple[list[Row], list[QuarantineEntry]]:
    """Rows of a unit with overrides applied, and its quarantined parts."""
    if unit.problem is not None:
        raise DataError(unit.problem)
    given = {name: value for name, value in vars(job.overrides).items() if value is not None}
    licence = {"licence": given.pop("licence")} if "licence" in given else {}
    rows, bad = [], []
    for item in FORMATS[job.format].convert(unit, job.source):
        if isinstance(item, Unit):
            bad.append(QuarantineEntry.of_unit(item, str(item.problem)))
        else:
            example = replace(item.example, **given)
            rows.append(replace(item, example=example, source_file=unit.file, source_record=unit.number, **licence))
    return rows, bad


def _is_incomplete(row: Row) -> bool:
    """Whether the picture may show more objects of the classes of the row's boxes than those."""
    unclear = row.extra.get(UNCLEAR, ())
    return any(box.label in unclear for box in target_boxes(row.example.target))


def _incompleteness(counts: Counts) -> tuple[str, ...]:
    """A note about records without all the objects that they ask for."""
    if not counts.incomplete:
        return ()
    return (
        f"boxes: {counts.incomplete:,} of {counts.records:,} records lack objects of their class, which are invalid "
        "(quarantined), crowds or cut by the border, so that an answer with all objects would not be the best; they "
        f"have the class in extra.{UNCLEAR}",
    )


def _absence(counts: Counts, source: Source) -> tuple[str, ...]:
    """A note about records whose images were not found."""
    if not counts.absent:
        return ()
    return (
        f"images: not found for {counts.absent:,} of {counts.records:,} records below {source.images.resolve()}, the "
        f"first {counts.absent_names[0]!r}; give the folder of the images with --images",
    )


def _writable(rows: list[Row]) -> tuple[list[Row], pa.Table, list[QuarantineEntry]]:
    """Rows that Parquet can store, the same rows as a table, and quarantine entries for the others."""
    try:
        return rows, to_table(rows), []
    except _NOT_STORABLE:
        kept, rejected = [], []
    for row in rows:
        try:
            to_table([row])
            kept.append(row)
        except _NOT_STORABLE as error:
            rejected.append(QuarantineEntry.of_row(row, f"Parquet cannot store a value: {error}"))
    return kept, to_table(kept), rejected


def _card(name: str, source: Source, counts: Counts) -> dict[str, Any]:
    """Metadata of a converted dataset, written to `CARD`."""
    form = FORMATS[name]
    return {
        "schema_version": VERSION,
        "format": name,
        "source": str(source.path),
        "image_root": "." if form.stores_images(source) else str(source.images.resolve()),
        "options": dict(source.options),
        "records": counts.records,
        "set_aside": counts.set_aside,
        "passed_over": counts.passed_over,
        "tasks": dict(counts.tasks),
        "splits": dict(counts.splits),
        "unread_keys": dict(counts.unread),
        "notes": list(counts.notes),
        "header": dict(form.header(source)) if form.header else {},
    }
