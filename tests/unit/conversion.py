"""Helpers that convert a source and read the output."""

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
class Conversion:
    """Output of a conversion."""

    counts: Counts
    rows: list[Row]
    quarantine: list[QuarantineEntry]
    folder: Path

    @property
    def reasons(self) -> dict[int, str]:
        """Reason of each quarantined record, by record number."""
        return {item.source_record: item.reason for item in self.quarantine}

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.folder / CARD).read_text())

    def export(self, name: str, out: Path) -> Path:
        """Export the records to their source format."""
        restore = FORMATS[name].restore
        assert restore is not None
        restore(iter(self.rows), self.card["header"], out)
        return out


def run_convert(name: str, source: Path, out: Path, workers: int = 1, **options: str) -> Conversion:
    """Convert a source in this format and read the dataset and its quarantine."""
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
    return Conversion(counts, rows, list(read_quarantine(out, "convert")), out)


def dialogue(*turns: str) -> list[dict[str, str]]:
    """A LLaVA conversation with alternating human and model turns."""
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(turns)]


def write_json(path: Path, records: Sequence[Any]) -> Path:
    """Write records as JSON Lines, or as one array if the name ends in ``.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records]
    path.write_text(json.dumps(list(records)) if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path
