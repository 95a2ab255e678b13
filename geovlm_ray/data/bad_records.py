"""Records that a run cannot use: set aside with the reason, listed in a file, and limited in number."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects, write_atomically, writing
from geovlm_ray.core.schema import Example
from geovlm_ray.data.records import field_of

log = logging.getLogger(__name__)

FILE = "bad_records.jsonl"
NAMED = 3
"""Records that an error message names."""
SHOWN = 10
"""Records that a run shows on the terminal as it sets them aside; more are only in the log and in the file."""


@dataclass(frozen=True)
class BadRecord:
    """A record that was set aside at a learner step, 0 before the first.

    ``origin`` is its shard and row, or the id of a scene.
    """

    origin: str
    id: str
    reason: str
    step: int = 0

    @classmethod
    def of(cls, example: Example, reason: str, step: int = 0) -> BadRecord:
        """The bad record of an example."""
        return cls(example.origin or example.id, example.id, reason.removeprefix(f"record {example.id!r}: "), step)

    def __str__(self) -> str:
        return f"{f'record {self.id!r} ({self.origin})' if self.id else self.origin}: {self.reason}"


class BadRecords:
    """The records of a dataset that are set aside, keyed by origin; their number only grows.

    ``total`` is the number of records of the dataset ``name``, and ``max_bad`` the largest fraction that may be bad.
    With `keep_in`, they are written to a file as they are found.
    """

    def __init__(self, name: str, total: int, max_bad: float) -> None:
        self.name = name
        self.total = total
        self.max_bad = max_bad
        self.file: Path | None = None
        self._records: dict[str, BadRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[BadRecord]:
        return iter(self._records.values())

    def __contains__(self, origin: str) -> bool:
        return origin in self._records

    def add(self, found: Iterable[BadRecord]) -> None:
        """Set records aside; those that already are remain as they are.

        Raises:
            DataError: More than ``max_bad`` of the dataset is bad, or the file cannot be written.
        """
        new = {record.origin: record for record in found if record.origin not in self._records}
        self._records |= new
        if self.file is not None:
            for number, record in enumerate(new.values(), len(self) - len(new)):
                log.log(logging.WARNING if number < SHOWN else logging.INFO, "set aside %s", record)
            with writing(self.file), self.file.open("a") as file:
                file.write(_lines(new.values()))
        self.check(self, self.total)

    def check(self, found: Iterable[BadRecord], among: int) -> None:
        """Raise DataError if more than ``max_bad`` of the ``among`` records that were checked are bad."""
        bad = list(found)
        if len(bad) > self.max_bad * among:
            more = f"; and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
            more += f"; once they are fixed, remove {self.file}" if self.file else ""
            raise DataError(
                f"{self.name}: expected at most {self.max_bad:.2%} bad records (data.max_bad), found {len(bad):,} of "
                f"{among:,}: {'; '.join(map(str, bad[:NAMED]))}{more}"
            )

    def keep_in(self, file: Path, *, rewrite: bool = True) -> None:
        """Add the records that a file lists, and list all in it from now on.

        Of several processes that share the file, only the first has to ``rewrite`` it.

        Raises:
            DataError: The file cannot be read or written, or more than ``max_bad`` of the dataset is bad.
        """
        listed = {record.origin: record for record in _read(file)} if file.is_file() else {}
        self._records = listed | self._records
        self.file = file
        if rewrite and (self._records or file.is_file()):
            write_atomically(file, _lines(self))
        self.check(self, self.total)

    @property
    def summary(self) -> str:
        """How many records are set aside, and the first of them; empty if there are none."""
        if not self._records:
            return ""
        share = len(self) / max(self.total, 1)
        where = f"; all of them: {self.file}" if self.file else ""
        return f"{len(self):,} of {self.total:,} records ({share:.2%}) are set aside, first: {next(iter(self))}{where}"


def _lines(records: Iterable[BadRecord]) -> str:
    return "".join(f"{json.dumps(asdict(record))}\n" for record in records)


def _read(file: Path) -> Iterator[BadRecord]:
    for number, row in enumerate(read_objects(file), 1):
        try:
            origin, name, reason = (field_of(row, key) for key in ("origin", "id", "reason"))
            yield BadRecord(origin, name, reason, field_of(row, "step", int))
        except DataError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
