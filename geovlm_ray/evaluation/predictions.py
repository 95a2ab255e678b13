"""Predictions as Parquet: what a model was asked, what it said, and what that is worth.

While a benchmark is drawn its predictions lie in parts, so that a process that is killed loses nothing that was
drawn; when it is complete they become one file, in the order of the benchmark.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.schema import Example, Sample
from geovlm_ray.data.records import frame_from_json, pixels_from_json, target_from_json
from geovlm_ray.evaluation.cases import Case
from geovlm_ray.evaluation.metrics.sound import Answered
from geovlm_ray.tasks.grammar import ThinkMode, parse_response
from geovlm_ray.tasks.targets import plain_frame, plain_target

PredictionRow = dict[str, Any]
PART_ROWS = 64
"""Predictions of a part; a process that is killed draws again what it had not yet written."""
SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("dataset", pa.string()),
        ("images", pa.list_(pa.string())),
        ("pixels", pa.string()),
        ("question", pa.string()),
        ("target", pa.string()),
        ("frame", pa.string()),
        ("dialect", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("group", pa.string()),
        ("gsd", pa.float64()),
        ("sensor", pa.string()),
        ("completion", pa.string()),
        ("tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("format", pa.float64()),
        ("score", pa.float64()),
        ("components", pa.string()),
        ("status", pa.string()),
    ]
)
"""``place`` counts the benchmark's records from 0; ``score`` in [0, 1] is the accuracy under the robust reward."""


def prediction_row(place: int, case: Case, sample: Sample) -> PredictionRow:
    """A scored sample beside its case, in the form of `SCHEMA`."""
    example = case.example
    assert sample.reward is not None
    return {
        "place": place,
        "example_id": example.id,
        "task": example.task,
        "dataset": example.dataset,
        "images": list(example.images),
        "pixels": json.dumps(asdict(example.pixels)),
        "question": example.question,
        "target": json.dumps(plain_target(example.target)),
        "frame": json.dumps(plain_frame(example.frame)),
        "dialect": example.dialect,
        "labels": list(example.labels),
        "group": case.group,
        "gsd": example.gsd,
        "sensor": example.sensor,
        "completion": sample.text,
        "tokens": len(sample.token_ids),
        "finish_reason": sample.finish_reason,
        "format": sample.reward.format,
        "score": sample.reward.accuracy,
        "components": json.dumps(sample.reward.components),
        "status": sample.reward.status,
    }


def row_example(row: PredictionRow) -> Example:
    """The example that a row is about."""
    return Example(
        id=row["example_id"],
        task=row["task"],
        images=tuple(row["images"]),
        question=row["question"],
        target=target_from_json(row["task"], json.loads(row["target"])),
        dataset=row["dataset"],
        frame=frame_from_json(json.loads(row["frame"])),
        dialect=row["dialect"],
        labels=tuple(row["labels"]),
        gsd=row["gsd"],
        sensor=row["sensor"],
        pixels=pixels_from_json(json.loads(row["pixels"])),
    )


def answered(row: PredictionRow, think: ThinkMode) -> Answered:
    """The answer of a row, empty where the completion breaks the answer grammar."""
    parsed = parse_response(row["completion"], think)
    return Answered(parsed.answer if parsed else "", row_example(row), row["group"], well_formed=parsed is not None)


class Predictions:
    """The predictions of one benchmark below a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.parquet"
        self._parts = folder / f"{name}.parts"
        self._waiting: list[PredictionRow] = []

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return self.file.is_file()

    def drawn(self) -> set[int]:
        """Places of the predictions that are there."""
        files = [self.file] if self.complete else self._part_files()
        return {place for file in files for place in _read(file, ["place"]).column("place").to_pylist()}

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Keep some more; they are written once there are `PART_ROWS` of them."""
        self._waiting += rows
        if len(self._waiting) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._parts.mkdir(parents=True, exist_ok=True)
            first = min(row["place"] for row in self._waiting)
            # The first place of a part is in no other one.
            write_atomically(self._parts / f"{first:09d}.parquet", _parquet(self._waiting))
            self._waiting = []

    def finish(self) -> None:
        """Make one file of the parts."""
        self.flush()
        if not self.complete:
            rows = [row for file in self._part_files() for row in _read(file).to_pylist()]
            write_atomically(self.file, _parquet(sorted(rows, key=lambda row: row["place"])))
        shutil.rmtree(self._parts, ignore_errors=True)

    def rows(self) -> list[PredictionRow]:
        """All of a complete benchmark, in its order."""
        return _read(self.file).to_pylist()

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob("*.parquet"))


def _parquet(rows: Sequence[PredictionRow]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected predictions as Parquet, found: {' '.join(str(error).split())}") from error
