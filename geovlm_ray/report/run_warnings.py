"""The warnings of a run, each once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects

FILE = "warnings.jsonl"
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class RunWarning:
    """A warning, its latest message, the first and last step that gave it, and how many did."""

    kind: str
    message: str
    first_step: int
    last_step: int
    count: int

    @property
    def title(self) -> str:
        """The kind as words."""
        return self.kind.replace("_", " ")

    @property
    def steps(self) -> str:
        """The first and last step and the count as text; step 0 is before training."""
        if self.count > 1:
            return f"steps {self.first_step} to {self.last_step}, {self.count} times"
        return f"step {self.first_step}" if self.first_step else "before training"


def read_warnings(folder: Path) -> list[RunWarning]:
    """The warnings in a run directory, by first occurrence; those that differ in numbers only are the same warning.

    Raises:
        DataError: a line is not a JSON object with an integer ``step`` and the texts ``kind`` and ``message``.
    """
    file = folder / FILE
    found: dict[tuple[str, str], RunWarning] = {}
    for number, row in enumerate(read_objects(file) if file.is_file() else [], 1):
        for name, kind in {"step": int, "kind": str, "message": str}.items():
            if not isinstance(row.get(name), kind):
                expected = f"{file}, line {number}: {name}: expected {kind.__name__}"
                raise DataError(f"{expected}, found {row.get(name, 'no such key')!r:.200}")
        key = (row["kind"], _NUMBER.sub("#", row["message"]))
        first, count = (found[key].first_step, found[key].count) if key in found else (row["step"], 0)
        found[key] = RunWarning(row["kind"], row["message"], first, row["step"], count + 1)
    return list(found.values())
