"""First validation pass over a shard: checks each record and summarizes it for cross-record checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Example, target_boxes
from geovlm_ray.data.convert import UNREADABLE
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.validation.balance import Balance
from geovlm_ray.data.validation.checks import RecordCheck, check_records
from geovlm_ray.data.validation.faults import RecordSummaries
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
    """Result of a shard; ``summaries.splits`` indexes ``splits``. ``problem`` is the error of an unreadable shard."""

    summaries: RecordSummaries
    splits: list[str] = field(default_factory=list)
    warnings: Findings = field(default_factory=Findings)
    balances: Balances = field(default_factory=dict)
    problem: str = ""


def scan_shard(job: ShardJob) -> ShardScan:
    """Check all records of a shard."""
    scan = _Scan(job)
    try:
        for batch in job.dataset.batches(job.shard):
            records = batch.to_pylist()
            for record, check in zip(records, check_records(records, need_images=job.need_images), strict=True):
                scan.add(record, check)
    except UNREADABLE as error:
        return ShardScan(_Scan(job).summaries(), problem=" ".join(str(error).split()))
    return ShardScan(scan.summaries(), list(scan.splits), scan.warnings, scan.balances)


def source_location(record: Mapping[str, Any]) -> str:
    """Source file and record number for messages."""
    return f"{record['source_file'] or 'unknown source'}, record {record['source_record']}"


class _Scan:
    """Accumulates the results of the records of a shard."""

    def __init__(self, job: ShardJob) -> None:
        self.folder, self.root = str(job.dataset.folder), str(job.dataset.root)
        self.splits: dict[str, int] = {}
        self.warnings = Findings()
        self.balances: Balances = {}
        self.rows: list[tuple[int, int, int, float, float, int, bool, int]] = []
        self.images: list[int] = []

    def add(self, record: Mapping[str, Any], check: RecordCheck) -> None:
        """Add the next record."""
        example = check.example
        split = self.splits.setdefault(example.split if example else "", len(self.splits))
        if example is None:
            self.rows.append((0, 0, 0, 0.0, 0.0, split, True, 0))
            return
        for kind, detail in check.warnings:
            self.warnings.add(kind, f"{source_location(record)}: {detail}")
        if check.fault is None:
            key = (example.dataset, example.task)
            self.balances.setdefault(key, Balance(example.task)).add(example)
        pixels = "" if example.pixels == PixelSettings() else repr(example.pixels)
        images = [text_key(self.root, name, pixels) for name in example.images]
        self.images += images
        identity = text_key(self.folder, example.dataset, example.split, example.id)
        question, answer = _keys(example, record, images) if images else (0, 0)
        size = example.frame.scale if example.frame.kind == "pixel" and target_boxes(example.target) else (0.0, 0.0)
        self.rows.append((identity, question, answer, *size, split, check.fault is not None, len(images)))

    def summaries(self) -> RecordSummaries:
        """Summaries of the added records."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 8
        ids, questions, answers = (np.array(column, dtype=np.uint64) for column in columns[:3])
        return RecordSummaries(
            ids=ids,
            questions=questions,
            answers=answers,
            sizes=np.array(columns[3:5], dtype=np.float32).reshape(2, -1).T,
            splits=np.array(columns[5], dtype=np.int32),
            bad=np.array(columns[6], dtype=bool),
            counts=np.array(columns[7], dtype=np.int32),
            images=np.array(self.images, dtype=np.uint64),
        )


def _keys(example: Example, record: Mapping[str, Any], images: list[int]) -> tuple[int, int]:
    """Fingerprints of the question with images and split, and of the same with task, target and reasoning."""
    question = text_key(example.split, example.question, *map(str, images))
    target = json.dumps(record["target"])
    return question, text_key(str(question), example.task, target, example.reasoning or "")
