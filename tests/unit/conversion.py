"""Helpers that convert a source and read the output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from geovlm_ray.data.convert import CARD, Counts, MetadataOverrides, convert
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.image_roots import image_root_of
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
    images = image_root_of(source)
    counts = convert(
        name,
        Source(source, images, {**FORMATS[name].options, **options}),
        out,
        MetadataOverrides(),
        workers=workers,
        on_progress=lambda counts: None,
    )
    rows = [row for data in open_datasets(out) for _, _, row in data.rows()] if counts.records else []
    return Conversion(counts, rows, list(read_quarantine(out, "convert")), out)


def write(path: Path, value: Any) -> Path:
    """Write a text, or a value as JSON, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def dialogue(*turns: str) -> list[dict[str, str]]:
    """A LLaVA conversation with alternating human and model turns."""
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(turns)]


def write_json(path: Path, records: Sequence[Any]) -> Path:
    """Write records as JSON Lines, or as one array if the name ends in ``.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records]
    path.write_text(json.dumps(list(records)) if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


CONTAINERS = ("jsonl", "json", "parquet", "shards", "arrow")
"""Containers of records: JSON lines, a JSON array, a Parquet file with image paths, and Parquet and Arrow files in a
folder of Hugging Face, with embedded images."""


def write_container(folder: Path, records: Sequence[dict[str, Any]], kind: str, image_key: str = "images") -> Path:
    """Write records whose images lie below ``folder`` in a container of `CONTAINERS`; returns the source."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("jsonl", "json"):
        return write_json(folder / f"records.{kind}", records)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), folder / "records.parquet")
        return folder / "records.parquet"

    def embedded(value: Any) -> Any:
        if isinstance(value, list):
            return [embedded(item) for item in value]
        return {"bytes": (folder / value).read_bytes(), "path": None}

    table = pa.Table.from_pylist([record | {image_key: embedded(record[image_key])} for record in records])
    source = folder / "dataset"
    (source / "data").mkdir(parents=True)
    (source / "README.md").write_text("A dataset.")
    if kind == "shards":
        pq.write_table(table, source / "data" / "test-00000-of-00001.parquet")
    else:
        with pa.ipc.new_stream(source / "data" / "test-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table)
    return source


def write_scene(path: Path, size: tuple[int, int] = (200, 160), orientation: int = 1) -> str:
    """Write an image with a pale rectangle at [60, 40, 120, 80]; returns its name."""
    image = Image.new("RGB", size, (90, 110, 80))
    image.paste((220, 220, 210), (60, 40, 120, 80))
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    return path.name
