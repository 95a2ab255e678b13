"""Predictions as Parquet: example, completion and score.

Predictions are written in part files as they are generated, so that a killed process loses at most one part. When the
benchmark is complete, the parts are merged into one file in benchmark order.
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
from geovlm_ray.evaluation.examples import BenchmarkExample
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.tasks.grammar import ThinkMode, parse_response
from geovlm_ray.tasks.targets import plain_frame, plain_target

PredictionRow = dict[str, Any]
PART_ROWS = 64
"""Predictions per part; those of an unwritten part are generated again after a kill."""
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
"""``place`` is the index of the record; ``score`` in [0, 1] is the accuracy under the default reward."""


def prediction_row(place: int, record: BenchmarkExample, sample: Sample) -> PredictionRow:
    """A row of `SCHEMA` from a benchmark example and a scored sample."""
    example = record.example
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
        "group": record.group,
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
    """The example of a row."""
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


def answered_example(row: PredictionRow, think: ThinkMode) -> AnsweredExample:
    """The answer and example of a row; the answer is empty if the completion breaks the answer grammar."""
    parsed = parse_response(row["completion"], think)
    answer = parsed.answer if parsed else ""
    return AnsweredExample(answer, row_example(row), row["group"], well_formed=parsed is not None)


class Predictions:
    """The prediction files of one benchmark in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.parquet"
        self._parts = folder / f"{name}.parts"
        self._buffer: list[PredictionRow] = []

    @property
    def complete(self) -> bool:
        """Whether all predictions are written and merged."""
        return self.file.is_file()

    def written_places(self) -> set[int]:
        """``place`` of every prediction on disk."""
        files = [self.file] if self.complete else self._part_files()
        return {place for file in files for place in _read(file, ["place"]).column("place").to_pylist()}

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Buffer rows; a part is written when the buffer reaches `PART_ROWS`."""
        self._buffer += rows
        if len(self._buffer) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as a part."""
        if self._buffer:
            self._parts.mkdir(parents=True, exist_ok=True)
            first = min(row["place"] for row in self._buffer)
            # Parts are disjoint, so their first places are unique.
            write_atomically(self._parts / f"{first:09d}.parquet", _parquet(self._buffer))
            self._buffer = []

    def finish(self) -> None:
        """Merge the parts into one file."""
        self.flush()
        if not self.complete:
            rows = [row for file in self._part_files() for row in _read(file).to_pylist()]
            write_atomically(self.file, _parquet(sorted(rows, key=lambda row: row["place"])))
        shutil.rmtree(self._parts, ignore_errors=True)

    def rows(self) -> list[PredictionRow]:
        """All predictions of a complete benchmark, in benchmark order."""
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
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: expected a Parquet file of predictions, found: {reason}") from error
