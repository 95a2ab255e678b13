"""Validation of converted datasets: checks of each record, of its images, and across records.

The first pass checks each record and keeps a compact summary (`geovlm_ray.data.validation.faults`). Then each unique
image is decoded once, and the records are compared by their summaries. Finally, bad records are read again and written
to ``quarantine.parquet`` with the reason; the shards are not modified.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from geovlm_ray.data.formats.base import short_repr
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.quarantine import QuarantineEntry, read_quarantine, write_quarantine
from geovlm_ray.data.table import to_row
from geovlm_ray.data.validation.balance import Balance
from geovlm_ray.data.validation.checks import check_records
from geovlm_ray.data.validation.faults import (
    IMAGE_DTYPE,
    FaultKind,
    Faults,
    RecordSummaries,
    find_faults,
    first_occurrences,
)
from geovlm_ray.data.validation.image_checks import ABSENT, RecordImage, check_images
from geovlm_ray.data.validation.record_index import Record, RecordIndex
from geovlm_ray.data.validation.scan import Balances, ShardJob, scan_shard, source_location
from geovlm_ray.data.validation.tally import Findings

IMAGE_BATCH = 32
RECORD_BATCH = 1_000
TRAIN_PREFIX = "train"
"""Prefix of the names of training splits."""

Item = TypeVar("Item")
OnProgress = Callable[[str, int], None]
"""Receives what is being checked, and how many are done."""


@dataclass
class ValidationReport:
    """Result of validation.

    ``images`` counts unique images, and ``absent`` those without a file. ``unreadable`` maps shards to their errors.
    """

    records: int = 0
    bad: int = 0
    images: int = 0
    absent: int = 0
    unreadable: dict[Path, str] = field(default_factory=dict)
    reasons: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
    balances: Balances = field(default_factory=dict)

    @property
    def bad_fraction(self) -> float:
        """Fraction of bad records."""
        return self.bad / max(self.records, 1)


def validate(
    datasets: Sequence[Dataset], *, need_images: bool, workers: int, on_progress: OnProgress
) -> ValidationReport:
    """Check all records of datasets and rewrite their quarantine files.

    Without ``need_images``, records without images and absent image files are valid; existing images are still checked.
    Entries of an earlier validation are replaced, those of the conversion are kept. Of equal records, all but the first
    are bad; of records that share an image between a training split and another split, the training records are bad.

    Raises:
        RunError: A worker process died.
        OSError: A quarantine file cannot be written.
    """
    report = ValidationReport()
    datasets = [replace(d, root=d.root.resolve()) for d in datasets]
    with Workers(workers) as pool:
        index, summaries, splits = _scan(datasets, need_images, pool, report, on_progress)
        images, messages = _check_images(index, summaries, pool, on_progress)
    if not need_images and ABSENT in messages:
        images["fault"][images["fault"] == messages.index(ABSENT)] = 0
    training = np.array([name.casefold().startswith(TRAIN_PREFIX) for name in splits], dtype=bool)
    faults = find_faults(summaries, images, training[summaries.records["split"]])
    report.records, report.images = len(summaries.records), len(images)
    report.bad, report.absent = int((~faults.good).sum()), int(images["absent"].sum())
    _warn(report, index, summaries, images, faults)
    reasons = _Reasons(index, summaries, faults, images, messages, splits, need_images)
    for dataset in datasets:
        _write_quarantine(dataset, reasons, report)
    return report


def _scan(
    datasets: Sequence[Dataset], need_images: bool, workers: Workers, report: ValidationReport, on_progress: OnProgress
) -> tuple[RecordIndex, RecordSummaries, list[str]]:
    """Check each record; return the index, the summaries and the split names that the summaries index."""
    jobs = [ShardJob(dataset, shard, need_images) for dataset in datasets for shard in dataset.shards]
    splits: dict[str, int] = {}
    parts: list[RecordSummaries] = []
    done = 0
    for job, scanned in zip(jobs, workers.in_order(scan_shard, jobs), strict=True):
        if scanned.problem:
            report.unreadable[job.shard] = scanned.problem
        split_ids = np.array([splits.setdefault(name, len(splits)) for name in scanned.splits], dtype=np.int32)
        records = scanned.summaries.records
        records["split"] = split_ids[records["split"]]
        parts.append(scanned.summaries)
        report.warnings.merge(scanned.warnings)
        for key, balance in scanned.balances.items():
            report.balances.setdefault(key, Balance(key[1])).merge(balance)
        done += len(records)
        on_progress("records", done)
    starts = np.cumsum([0, *(len(part.records) for part in parts)])
    index = RecordIndex([(job.dataset, job.shard) for job in jobs], starts)
    records, image_keys = (np.concatenate([getattr(part, name) for part in parts]) for name in ("records", "images"))
    return index, RecordSummaries(records, image_keys), list(splits)


def _check_images(
    index: RecordIndex, summaries: RecordSummaries, workers: Workers, on_progress: OnProgress
) -> tuple[np.ndarray, list[str]]:
    """Decode each unique image; return an array of `IMAGE_DTYPE`, and the messages that its faults index ("" at 0)."""
    unique, _ = summaries.unique_images
    images = np.zeros(len(unique), dtype=IMAGE_DTYPE)
    messages = {"": 0}
    done = 0
    batches = _batched(_record_images(index, summaries, unique), IMAGE_BATCH)
    for checked, batch_messages in workers.in_order(check_images, batches):
        message_ids = np.array([0, *(messages.setdefault(text, len(messages)) for text in batch_messages)])
        checked["fault"] = message_ids[checked["fault"]]
        images[done : done + len(checked)] = checked
        done += len(checked)
        on_progress("images", done)
    return images, list(messages)


def _record_images(index: RecordIndex, summaries: RecordSummaries, images: np.ndarray) -> Iterator[RecordImage]:
    """Record images by ascending image index."""
    for number, dataset, record in index.read(np.unique(summaries.owners[images])):
        example = to_row(record).example
        first, end = summaries.starts[number], summaries.starts[number + 1]
        for image in images[slice(*np.searchsorted(images, [first, end]))]:
            yield RecordImage(dataset.root, example.images[image - first], example.pixels)


def _warn(
    report: ValidationReport, index: RecordIndex, summaries: RecordSummaries, images: np.ndarray, faults: Faults
) -> None:
    """Add the warnings of cross-record checks and class balances."""
    # A duplicate id is only a warning: many datasets use one id for all records of an image.
    duplicates = {
        "same question and images, different target or reasoning": summaries.records["question"],
        "duplicate id": summaries.records["id"],
    }
    for kind, keys in duplicates.items():
        earlier = first_occurrences(keys, faults.good)
        repeats = np.flatnonzero(earlier >= 0)
        if len(repeats):
            example = f"{index.name(repeats[0])} and {index.name(earlier[repeats[0]])}"
            report.warnings.add(kind, example, len(repeats))
    unique, rank = summaries.unique_images
    _, names = np.unique(images["name"], return_index=True)
    originals = first_occurrences(images["content"], np.isin(np.arange(len(images)), names))
    copies = np.flatnonzero(originals >= 0)
    if len(copies):
        pair = [_image_name(index, summaries, unique[i]) for i in (originals[copies[0]], copies[0])]
        report.warnings.add("duplicate image under another name", " and ".join(pair), len(copies))
    # Boxes refer to the last image of a record.
    sizes = summaries.records["size"]
    records = np.flatnonzero((sizes[:, 0] > 0) & (summaries.records["images"] > 0))
    last = images[rank[summaries.starts[records + 1] - 1]]
    differ = (last["width"] > 0) & ((sizes[records] != np.stack([last["width"], last["height"]], 1)).any(1))
    if differ.any():
        first = np.flatnonzero(differ)[0]
        size, actual = sizes[records[first]], last[first]
        name = index.name(records[first])
        example = f"{name}: {size[0]:g} x {size[1]:g}, found {actual['width']} x {actual['height']}"
        report.warnings.add("pixel frame differs from the image size", example, int(differ.sum()))
    for (dataset, _), balance in report.balances.items():
        balance.warn(dataset, report.warnings)


def _image_name(index: RecordIndex, summaries: RecordSummaries, image: int) -> str:
    number = summaries.owners[image]
    ((_, _, record),) = index.read(np.array([number]))
    return repr(record["images"][image - summaries.starts[number]])


@dataclass(frozen=True)
class _Reasons:
    """Data for the reasons of bad records; ``messages`` are the fault messages that ``images`` indexes."""

    index: RecordIndex
    summaries: RecordSummaries
    faults: Faults
    images: np.ndarray
    messages: Sequence[str]
    splits: Sequence[str]
    need_images: bool

    def of(self, records: Sequence[tuple[int, Dataset, Record]]) -> Iterator[str]:
        """The reasons of bad records, in their order."""
        faulty = [record for number, _, record in records if self.faults.kind[number] == FaultKind.RECORD]
        checks = iter(check_records(faulty, need_images=self.need_images))
        for number, _, record in records:
            by_itself = self.faults.kind[number] == FaultKind.RECORD
            yield str(next(checks).fault) if by_itself else self._cross_record(number, record)

    def _cross_record(self, number: int, record: Record) -> str:
        kind, image, other = (int(a[number]) for a in (self.faults.kind, self.faults.image, self.faults.other))
        if kind == FaultKind.DUPLICATE:
            return f"same question, images and target as {self.index.name(other)}"
        name = f"image {short_repr(record['images'][image - self.summaries.starts[number]])}"
        if kind == FaultKind.IMAGE:
            return f"{name}: {self.messages[self.images['fault'][self.summaries.unique_images[1][image]]]}"
        split = self.splits[self.summaries.records["split"][other]]
        relation = "is a near-duplicate of an image in" if kind == FaultKind.SIMILAR_IMAGE else "is also in"
        return f"{name} {relation} split {split!r}, {self.index.name(other)}"


def _write_quarantine(dataset: Dataset, reasons: _Reasons, report: ValidationReport) -> None:
    """Rewrite the quarantine file of a dataset: entries of the conversion, unreadable shards and bad records."""
    numbers = reasons.index.of(dataset, np.flatnonzero(~reasons.faults.good))
    with write_quarantine(dataset.folder) as add:
        for kept in _batched(read_quarantine(dataset.folder, "convert"), RECORD_BATCH):
            add(kept)
        unreadable = [(shard, report.unreadable[shard]) for shard in dataset.shards if shard in report.unreadable]
        add([QuarantineEntry("validate", reason[:1000], "", 0, shard=shard.name) for shard, reason in unreadable])
        for batch in _batched(reasons.index.read(numbers), RECORD_BATCH):
            bad = []
            for (number, _, record), reason in zip(batch, reasons.of(batch), strict=True):
                _, shard, row = reasons.index.locate(number)
                origin = record["source_file"] or "", record["source_record"] or 0, record["id"]
                entry = QuarantineEntry("validate", reason[:1000], *origin, shard=shard.name, row=row)
                bad.append(entry)
                report.reasons.add(entry.kind, f"{source_location(record)}: {reason}")
            add(bad)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
