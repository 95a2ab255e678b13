"""Predictions as Parquet: example, completion and score.

Predictions are written in part files as they are generated, so that a killed process loses at most one part. When the
benchmark is complete, the parts are merged into one file in benchmark order.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from geovlm_ray.core.schema import Sample, SampleGroup
from geovlm_ray.data.bad_records import FILE as BAD_RECORDS
from geovlm_ray.data.bad_records import BadRecord, BadRecords
from geovlm_ray.data.sample_rows import (
    SampleRow,
    example_columns,
    read_rows,
    row_example,
    sample_columns,
    schema_with,
    write_rows,
)
from geovlm_ray.evaluation.confidence import Tokenizer, mean_probability
from geovlm_ray.evaluation.examples import BenchmarkExample
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.tasks.answers.grammar import ThinkMode, parse_response

PredictionRow = SampleRow
PART_ROWS = 64
"""Predictions per part; those of an unwritten part are generated again after a kill."""
SCHEMA = schema_with(
    {
        "": {"place": pa.int64()},
        "task": {"dataset": pa.string()},
        "dialect": {"labels": pa.list_(pa.string()), "group": pa.string(), "gsd": pa.float64(), "sensor": pa.string()},
        "completion": {"tokens": pa.int32(), "confidence": pa.float64()},
        "format": {"score": pa.float64()},
    }
)
"""``place`` is the index of the record; ``confidence`` is that of `mean_probability`, null if it was not computed;
``score`` in [0, 1] is the accuracy under the default reward.
"""


def prediction_row(
    place: int, record: BenchmarkExample, sample: Sample, confidence: float | None = None
) -> PredictionRow:
    """A row of `SCHEMA` from a benchmark example and a scored sample."""
    example = record.example
    assert sample.reward is not None
    return {
        **example_columns(example),
        **sample_columns(sample),
        "place": place,
        "dataset": example.dataset,
        "labels": list(example.labels),
        "group": record.group,
        "gsd": example.gsd,
        "sensor": example.sensor,
        "tokens": len(sample.policy_logprobs),
        "confidence": confidence,
        "score": sample.reward.accuracy,
    }


def answered_example(row: PredictionRow, think: ThinkMode) -> AnsweredExample:
    """The answer and example of a row; the answer is empty if the completion breaks the answer grammar."""
    parsed = parse_response(row["completion"], think)
    answer, confidence = (parsed.answer, parsed.confidence) if parsed else ("", None)
    if confidence is None:
        confidence = row.get("confidence")
    return AnsweredExample(answer, row_example(row), row["group"], parsed is not None, confidence)


class Predictions:
    """The prediction files of one benchmark in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
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
        return {row["place"] for file in files for row in read_rows(file, ["place"])}

    def bad_records(self, total: int, max_bad: float) -> BadRecords:
        """Those of ``total`` examples that could not be shown or scored, kept in a file beside the predictions.

        Raises:
            DataError: they are more than ``max_bad`` of all, or the file cannot be read.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        bad = BadRecords(f"benchmark {self.name}", total, max_bad)
        bad.keep_in(self.file.with_name(f"{self.name}.{BAD_RECORDS}"))
        return bad

    def add_groups(
        self,
        groups: Mapping[int, SampleGroup],
        examples: Sequence[BenchmarkExample],
        bad: BadRecords,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Add the first completion of each scored group, keyed by place; records with a problem are set aside.

        With ``tokenizer``, the confidence is computed.

        Raises:
            DataError: too many are, or a part cannot be written.
        """
        good = {place: group for place, group in groups.items() if not group.problem}
        for place, group in good.items():
            sample = group.samples[0]
            confidence = mean_probability(sample, tokenizer) if tokenizer else None
            self.add([prediction_row(place, examples[place], sample, confidence)])
        bad.add(BadRecord.of(group.prompt.example, group.problem) for group in groups.values() if group.problem)

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
            write_rows(self._parts / f"{first:09d}.parquet", self._buffer, SCHEMA)
            self._buffer = []

    def finish(self) -> None:
        """Merge the parts into one file."""
        self.flush()
        if not self.complete:
            rows = [row for file in self._part_files() for row in read_rows(file)]
            write_rows(self.file, sorted(rows, key=lambda row: row["place"]), SCHEMA)
        shutil.rmtree(self._parts, ignore_errors=True)

    def rows(self) -> list[PredictionRow]:
        """All predictions of a complete benchmark, in benchmark order."""
        return read_rows(self.file)

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob("*.parquet"))
