"""First validation pass over a shard: checks each record and summarizes it for cross-record checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.errors import UNREADABLE
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.validation.balance import Balance
from geovlm_ray.data.validation.checks import RecordCheck, check_records
from geovlm_ray.data.validation.faults import RECORD_DTYPE, RecordSummaries
from geovlm_ray.data.validation.fingerprints import text_key
from geovlm_ray.data.validation.tally import Findings

Balances = dict[tuple[str, str], Balance]
"""Class balances by dataset and task."""


@dataclass(frozen=True)
class ShardJob:
    """A shard to check. With ``need_images``, a record without images is faulty."""

    dataset: Dataset
    shard: Path
    need_images: bool


@dataclass
class ShardScan:
    """Result of a shard; ``splits`` maps names to their indices. ``problem`` is the error of an unreadable shard."""

    summaries: RecordSummaries
    splits: dict[str, int] = field(default_factory=dict)
    warnings: Findings = field(default_factory=Findings)
    balances: Balances = field(default_factory=dict)
    problem: str = ""

    def add(self, job: ShardJob, record: Mapping[str, Any], check: RecordCheck) -> tuple[tuple[Any, ...], list[int]]:
        """Add the findings of a record; return it as in `RECORD_DTYPE`, and the fingerprints of its images."""
        example = check.example
        split = self.splits.setdefault(example.split if example else "", len(self.splits))
        if example is None:
            return (0, 0, 0, (0, 0), split, True, 0), []
        for kind, detail in check.warnings:
            self.warnings.add(kind, f"{source_location(record)}: {detail}")
        if check.fault is None:
            key = (example.dataset, example.task)
            self.balances.setdefault(key, Balance(example.task)).add(example)
        pixels = "" if example.pixels == PixelSettings() else repr(example.pixels)
        images = [text_key(str(job.dataset.root), name, pixels) for name in example.images]
        question = answer = 0
        if images:
            question = text_key(example.split, example.question, *map(str, images))
            target = json.dumps(record["target"])
            answer = text_key(str(question), example.task, target, example.reasoning or "")
        identity = text_key(str(job.dataset.folder), example.dataset, example.split, example.id)
        size = example.frame.scale if example.frame.kind == "pixel" and target_boxes(example.target) else (0, 0)
        return (identity, question, answer, size, split, check.fault is not None, len(images)), images


def scan_shard(job: ShardJob) -> ShardScan:
    """Check all records of a shard."""
    scan = ShardScan(_summaries([], []))
    rows, images = [], []
    try:
        for batch in job.dataset.batches(job.shard):
            records = batch.to_pylist()
            for record, check in zip(records, check_records(records, need_images=job.need_images), strict=True):
                row, row_images = scan.add(job, record, check)
                rows.append(row)
                images += row_images
    except UNREADABLE as error:
        return ShardScan(_summaries([], []), problem=" ".join(str(error).split()))
    return replace(scan, summaries=_summaries(rows, images))


def _summaries(rows: list[tuple[Any, ...]], images: list[int]) -> RecordSummaries:
    return RecordSummaries(np.array(rows, dtype=RECORD_DTYPE), np.array(images, dtype=np.uint64))


def source_location(record: Mapping[str, Any]) -> str:
    """Source file and record number for messages."""
    return f"{record['source_file'] or 'unknown source'}, record {record['source_record']}"
