"""Checks of converted datasets: each record by itself, its pictures, and the records against one another.

First every record is checked by itself, and a few numbers of it are kept (`geovlm_ray.data.validation.ledger`). Then
each picture is decoded once, however many records name it, and records are compared by their numbers. Last, the bad
ones are read again, and go to ``quarantine.parquet`` with the reason; the shards stay as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from geovlm_ray.data.formats.base import shown
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.quarantine import SetAside, read_quarantine, write_quarantine
from geovlm_ray.data.table import to_row
from geovlm_ray.data.validation.balance import Balance
from geovlm_ray.data.validation.checks import check_records
from geovlm_ray.data.validation.ledger import PICTURE, Entries, Faults, Why, find_faults, repeated
from geovlm_ray.data.validation.numbered import Numbered, Record
from geovlm_ray.data.validation.pictures import ABSENT, Picture, look_at
from geovlm_ray.data.validation.scan import Balances, ShardJob, place_in_source, scan_shard
from geovlm_ray.data.validation.tally import Findings

PICTURES_AT_ONCE = 32
RECORDS_AT_ONCE = 1_000
TRAINING = "train"
"""How the name of a split begins that is trained on."""

Item = TypeVar("Item")
OnProgress = Callable[[str, int], None]
"""Told what is being checked, and how many are done."""


@dataclass
class ValidationReport:
    """What validation found. ``unreadable`` are shards that could not be read at all, with the reason."""

    records: int = 0
    bad: int = 0
    pictures: int = 0
    absent: int = 0
    unreadable: dict[Path, str] = field(default_factory=dict)
    reasons: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
    balances: Balances = field(default_factory=dict)

    @property
    def bad_fraction(self) -> float:
        """Bad records over all."""
        return self.bad / max(self.records, 1)


def validate(
    datasets: Sequence[Dataset], *, need_images: bool, workers: int, on_progress: OnProgress
) -> ValidationReport:
    """Check all records of some datasets and rewrite their quarantines.

    Without ``need_images``, records without images and images that are not there are in order; those that are there
    are checked all the same. What an earlier validation found is forgotten, what conversion set aside is kept. Of
    equal records the first stays; of records that share a picture with another split, those that are not trained on.

    Raises:
        RunError: a worker process died.
        OSError: a quarantine cannot be written.
    """
    report = ValidationReport()
    datasets = [replace(d, root=d.root.resolve()) for d in datasets]
    with Workers(workers) as pool:
        numbered, entries, splits = _scan(datasets, need_images, pool, report, on_progress)
        pictures, texts = _look(numbered, entries, pool, on_progress)
    if not need_images and ABSENT in texts:
        pictures["fault"][pictures["fault"] == texts.index(ABSENT)] = 0
    training = np.array([name.casefold().startswith(TRAINING) for name in splits], dtype=bool)
    faults = find_faults(entries, pictures, training[entries.splits])
    report.records, report.pictures = len(entries.ids), len(pictures)
    report.bad, report.absent = int((~faults.good).sum()), int(pictures["absent"].sum())
    _warn(report, numbered, entries, pictures, faults)
    reasons = _Reasons(numbered, entries, faults, pictures, texts, splits, need_images)
    for dataset in datasets:
        _write(dataset, reasons, report)
    return report


def _scan(
    datasets: Sequence[Dataset], need_images: bool, workers: Workers, report: ValidationReport, on_progress: OnProgress
) -> tuple[Numbered, Entries, list[str]]:
    """Check every record by itself: where the records are, what is kept of them, and the names of their splits."""
    jobs = [ShardJob(dataset, shard, need_images) for dataset in datasets for shard in dataset.shards]
    splits: dict[str, int] = {}
    parts: list[Entries] = []
    done = 0
    for job, scanned in zip(jobs, workers.in_order(scan_shard, jobs), strict=True):
        if scanned.problem:
            report.unreadable[job.shard] = scanned.problem
        numbers = np.array([splits.setdefault(name, len(splits)) for name in scanned.splits], dtype=np.int32)
        parts.append(replace(scanned.entries, splits=numbers[scanned.entries.splits]))
        report.warnings.merge(scanned.warnings)
        for key, balance in scanned.balances.items():
            report.balances.setdefault(key, Balance(key[1])).merge(balance)
        done += len(scanned.entries.ids)
        on_progress("records", done)
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])
    return Numbered([(job.dataset, job.shard) for job in jobs], starts), Entries.joined(parts), list(splits)


def _look(
    numbered: Numbered, entries: Entries, workers: Workers, on_progress: OnProgress
) -> tuple[np.ndarray, list[str]]:
    """Decode every picture once: an array of `PICTURE`, and the texts that its faults number ("" for none)."""
    images, _ = entries.pictures
    pictures = np.zeros(len(images), dtype=PICTURE)
    texts = {"": 0}
    done = 0
    for seen, found in workers.in_order(look_at, _pictures(numbered, entries, images)):
        numbers = np.array([0, *(texts.setdefault(text, len(texts)) for text in found)])
        seen["fault"] = numbers[seen["fault"]]
        pictures[done : done + len(seen)] = seen
        done += len(seen)
        on_progress("images", done)
    return pictures, list(texts)


def _pictures(numbered: Numbered, entries: Entries, images: np.ndarray) -> Iterator[list[Picture]]:
    """The pictures behind some ascending image numbers, some at a time."""

    def one_by_one() -> Iterator[Picture]:
        for number, dataset, record in numbered.read(np.unique(entries.owners[images])):
            example = to_row(record).example
            first, end = entries.starts[number], entries.starts[number + 1]
            for image in images[slice(*np.searchsorted(images, [first, end]))]:
                yield Picture(dataset.root, example.images[image - first], example.pixels)

    stream = one_by_one()
    while some := list(itertools.islice(stream, PICTURES_AT_ONCE)):
        yield some


def _warn(report: ValidationReport, numbered: Numbered, entries: Entries, pictures: np.ndarray, faults: Faults) -> None:
    """Add what is odd, though no record is bad for it."""
    # Datasets of the field give all records about an image one id, and nothing is known by it.
    alike = {
        "the same question and images with another target or reasoning": entries.questions,
        "the same id": entries.ids,
    }
    for what, keys in alike.items():
        earlier = repeated(keys, faults.good)
        again = np.flatnonzero(earlier >= 0)
        if len(again):
            report.warnings.add(what, f"{numbered.name(again[0])} and {numbered.name(earlier[again[0]])}", len(again))
    images, place = entries.pictures
    _, names = np.unique(pictures["name"], return_index=True)
    copies = repeated(pictures["content"], np.isin(np.arange(len(pictures)), names))
    again = np.flatnonzero(copies >= 0)
    if len(again):
        pair = [_image_name(numbered, entries, images[p]) for p in (copies[again[0]], again[0])]
        report.warnings.add("the same image under another name", " and ".join(pair), len(again))
    last = np.flatnonzero((entries.sizes[:, 0] > 0) & (entries.counts > 0))
    shown = pictures[place[entries.starts[last + 1] - 1]]
    differ = (shown["width"] > 0) & ((entries.sizes[last] != np.stack([shown["width"], shown["height"]], 1)).any(1))
    if differ.any():
        first = np.flatnonzero(differ)[0]
        size, real = entries.sizes[last[first]], shown[first]
        example = f"{numbered.name(last[first])}: {size[0]:g} x {size[1]:g}, found {real['width']} x {real['height']}"
        report.warnings.add("boxes in pixels of another size than the image has", example, int(differ.sum()))
    for (dataset, _), balance in report.balances.items():
        balance.warn(dataset, report.warnings)


def _image_name(numbered: Numbered, entries: Entries, image: int) -> str:
    number = entries.owners[image]
    ((_, _, record),) = numbered.read(np.array([number]))
    return repr(record["images"][image - entries.starts[number]])


@dataclass(frozen=True)
class _Reasons:
    """What words need to say why a record is bad; ``texts`` are those that the faults of pictures number."""

    numbered: Numbered
    entries: Entries
    faults: Faults
    pictures: np.ndarray
    texts: Sequence[str]
    splits: Sequence[str]
    need_images: bool

    def of(self, found: Sequence[tuple[int, Dataset, Record]]) -> Iterator[str]:
        """The reasons of some bad records."""
        by_itself = [record for number, _, record in found if self.faults.why[number] == Why.RECORD]
        verdicts = iter(check_records(by_itself, need_images=self.need_images))
        for number, _, record in found:
            alone = self.faults.why[number] == Why.RECORD
            yield str(next(verdicts).fault) if alone else self._compared(number, record)

    def _compared(self, number: int, record: Record) -> str:
        why, image, other = (int(a[number]) for a in (self.faults.why, self.faults.image, self.faults.other))
        if why == Why.REPEATED:
            return f"the same question, images and target as {self.numbered.name(other)}"
        name = f"image {shown(record['images'][image - self.entries.starts[number]])}"
        if why == Why.IMAGE:
            return f"{name}: {self.texts[self.pictures['fault'][self.entries.pictures[1][image]]]}"
        split = self.splits[self.entries.splits[other]]
        looks = "looks like one of" if why == Why.ALIKE else "is also in"
        return f"{name} {looks} split {split!r}, {self.numbered.name(other)}"


def _write(dataset: Dataset, reasons: _Reasons, report: ValidationReport) -> None:
    """Replace the quarantine of a dataset: what conversion set aside, and the bad records."""
    numbers = reasons.numbered.of(dataset, np.flatnonzero(~reasons.faults.good))
    with write_quarantine(dataset.folder) as add:
        for kept in _chunks(read_quarantine(dataset.folder, "convert")):
            add(kept)
        unread = {shard: report.unreadable[shard] for shard in dataset.shards if shard in report.unreadable}
        add([SetAside("validate", reason[:1000], "", 0, shard=shard.name) for shard, reason in unread.items()])
        for found in _chunks(reasons.numbered.read(numbers)):
            bad = []
            for (number, _, record), reason in zip(found, reasons.of(found), strict=True):
                _, shard, row = reasons.numbered.place(number)
                bad.append(
                    SetAside(
                        "validate",
                        reason[:1000],
                        record["source_file"] or "",
                        record["source_record"] or 0,
                        record["id"],
                        shard=shard.name,
                        row=row,
                    )
                )
                report.reasons.add(bad[-1].kind, f"{place_in_source(record)}: {reason}")
            add(bad)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    stream = iter(items)
    while some := list(itertools.islice(stream, RECORDS_AT_ONCE)):
        yield some
