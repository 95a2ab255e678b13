"""Checks of the records of a run before it starts: cheap ones of all, decoding and scoring of some."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_boxes
from geovlm_ray.data.bad_records import BadRecord
from geovlm_ray.data.images import image_size
from geovlm_ray.data.sampler import RecordStream, Stream, record_name
from geovlm_ray.data.validation.checks import RecordCheck, check_records
from geovlm_ray.data.validation.tally import Findings

MAX_RECORDS = 200_000
"""Records whose values are checked before a run; of more, evenly spaced ones. Each is checked when it is sampled."""
BATCH = 1_000

CheckExample = Callable[[Example], None]
"""Raises DataError if a run cannot use an example."""


@dataclass
class RecordReport:
    """What was found: the records checked, of how many, and warnings by kind."""

    checked: int = 0
    total: int = 0
    warnings: Findings = field(default_factory=Findings)

    @property
    def lines(self) -> list[str]:
        """What a user has to know, a line each."""
        lines = []
        if self.checked < self.total:
            lines.append(f"Values of {self.checked:,} of {self.total:,} records checked, evenly spaced.")
        for kind, count in self.warnings.counts.items():
            lines.append(f"Warning: {kind}: {count:,} records, first: {self.warnings.examples[kind]}")
        return lines


def check_stream(
    stream: Stream, tasks: Sequence[str], held_out: Sequence[Example], check: CheckExample, *, images: int
) -> RecordReport:
    """Check the records of a stream and set bad ones aside.

    All records are checked for valid values; images that training and other splits share give a warning. About
    ``images`` of the training records of ``tasks``, evenly spaced and equally many per task, are also scored and passed
    to ``check``, which decodes their images; so are the ``held_out`` examples, and one scene per task.

    Raises:
        DataError: More than ``data.max_bad`` of the records that were checked are bad, or all of a task.
    """
    report = RecordReport()
    if isinstance(stream, RecordStream):
        _check_values(stream, report)
        _warn_of_shared_images(stream, report.warnings)
        chosen = [i for task in tasks for i in _evenly(stream.training_records(task), -(-images // len(tasks)))]
        _check_uses(stream, sorted(i for i in chosen if stream.table.origin(i) not in stream.bad), check, report)
    else:
        held_out = [*(stream.of_task(task, 0) for task in tasks), *held_out]
    for example in held_out:
        try:
            check(example)
        except DataError as error:
            stream.set_aside(example, str(error))
    for task in tasks:
        # Fails if no record of the task is left.
        stream.of_task(task, 0)
    return report


def _check_values(stream: RecordStream, report: RecordReport) -> None:
    """Check the values of all records, or of `MAX_RECORDS` of them."""
    indices = _evenly(np.arange(len(stream.table)), MAX_RECORDS)
    report.checked, report.total = len(indices), len(stream.table)
    bad = []
    for origin, name, checked in _checks(stream, indices, answers=False):
        for kind, detail in checked.warnings:
            report.warnings.add(kind, f"{origin}: {detail}")
        if checked.fault is not None:
            bad.append(BadRecord(origin, name, checked.fault))
    stream.bad.check(bad, len(indices))
    stream.bad.add(bad)


def _warn_of_shared_images(stream: RecordStream, warnings: Findings) -> None:
    """Warn of training records that share an image path with a record of another split: held-out figures flatter."""
    keys, owners = stream.table.image_keys()
    is_training = np.isin(owners, stream.training)
    shared = np.flatnonzero(is_training & np.isin(keys, keys[~is_training]))
    if len(shared):
        first = shared[0]
        other = owners[~is_training][keys[~is_training] == keys[first]][0]
        example = f"{stream.table.origin(int(owners[first]))} and {stream.table.origin(int(other))}"
        kind = "an image is also in a split that is not trained on (`data validate` sets such records aside)"
        warnings.add(kind, example, len(np.unique(owners[shared])))


def _check_uses(stream: RecordStream, indices: Sequence[int], check: CheckExample, report: RecordReport) -> None:
    """Score the reference responses of records, and pass them to ``check``."""
    bad: list[BadRecord] = []
    for i, (origin, name, checked) in zip(indices, _checks(stream, indices, answers=True), strict=True):
        try:
            if checked.fault is not None:
                raise DataError(checked.fault)
            check(stream.example(i))
            _warn_of_frame(stream.table.row(i).example, report.warnings)
        except DataError as error:
            bad.append(BadRecord(origin, name, str(error).removeprefix(f"record {name!r}: ")))
    stream.bad.check(bad, len(indices))
    stream.bad.add(bad)


def _warn_of_frame(example: Example, warnings: Findings) -> None:
    """Warn of boxes in pixels of an image of another size; boxes refer to the last image."""
    if example.frame.kind == "pixel" and target_boxes(example.target) and example.images:
        width, height = image_size(example.images[-1])
        if example.frame.scale != (width, height):
            size = "{:g} x {:g}".format(*example.frame.scale)
            warnings.add(
                "pixel frame differs from the image size", f"{example.origin}: {size}, found {width} x {height}"
            )


def _checks(
    stream: RecordStream, indices: Sequence[int] | np.ndarray, *, answers: bool
) -> Iterator[tuple[str, str, RecordCheck]]:
    """Origin, id and check of records."""
    records = stream.table.records(indices)
    while batch := list(itertools.islice(records, BATCH)):
        checks = check_records([values for _, values in batch], need_images=True, answers=answers)
        for (i, values), check in zip(batch, checks, strict=True):
            yield stream.table.origin(i), record_name(values), check


def _evenly(values: np.ndarray, limit: int) -> list[int]:
    """At most ``limit`` evenly spaced values."""
    count = min(len(values), limit)
    return values[np.linspace(0, len(values) - 1, count).astype(int)].tolist()
