"""Convert a source in a test and read back what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geovlm_ray.data.convert import CARD, Counts, MetadataOverrides, convert
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import QuarantineEntry, read_quarantine
from geovlm_ray.data.table import Row


@dataclass(frozen=True)
class Outcome:
    """What a conversion made."""

    counts: Counts
    rows: list[Row]
    aside: list[QuarantineEntry]
    folder: Path

    @property
    def reasons(self) -> dict[int, str]:
        """Why, by the number of the record."""
        return {item.source_record: item.reason for item in self.aside}

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.folder / CARD).read_text())

    def restored(self, name: str, out: Path) -> Path:
        """Write the records back in their format."""
        restore = FORMATS[name].restore
        assert restore is not None
        restore(iter(self.rows), self.card["header"], out)
        return out


def converted(name: str, source: Path, out: Path, workers: int = 1, **options: str) -> Outcome:
    images = source if source.is_dir() else source.parent
    counts = convert(
        name,
        Source(source, images, options),
        out,
        MetadataOverrides(),
        workers=workers,
        on_progress=lambda counts: None,
    )
    rows = [row for data in open_datasets(out) for _, _, row in data.rows()] if counts.records else []
    return Outcome(counts, rows, list(read_quarantine(out, "convert")), out)


def talk(*turns: str) -> list[dict[str, str]]:
    """Questions and answers in turn."""
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(turns)]


def write_json(path: Path, records: Sequence[Any]) -> Path:
    """Records as lines, or as an array where the name ends in ``.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records]
    path.write_text(json.dumps(list(records)) if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path
