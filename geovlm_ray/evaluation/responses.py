"""Evaluating a file of responses: reading it, and the metrics that fit what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.records import scoring_record
from geovlm_ray.evaluation.metrics.bootstrap import Interval, intervals, means
from geovlm_ray.evaluation.metrics.earthdial_files import Layout, layout
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import Answered, needs_embedder, sound_metrics
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.grammar import parse_response


@dataclass(frozen=True)
class Evaluation:
    """Metrics of n records: the published ones, and the sound ones with their intervals."""

    paper: dict[str, float]
    sound: dict[str, Interval]
    n: int


def evaluate_records(path: Path, task: str | None, config: RewardConfig) -> Evaluation:
    """Evaluate records as ``score`` takes them; with ``task`` only those of that task.

    A response that breaks the answer grammar counts as an empty answer; the share of those that keep it stands
    under ``format``. With records of several tasks the metrics of each are named ``TASK/METRIC``.

    Raises:
        DataError: a line cannot be read, or no record is left.
    """
    by_task = _read_records(path, task, config)
    embedder = _embedder(by_task, config)
    paper: dict[str, float] = {}
    sound: dict[str, Interval] = {}
    for name, records in by_task.items():
        prefix = f"{name}/" if len(by_task) > 1 else ""
        kept = means({"format": np.array([r.well_formed for r in records])})
        found = intervals(kept, len(records)) | sound_metrics(records, embedder)
        sound |= {f"{prefix}{metric}": value for metric, value in found.items()}
        paper |= {f"{prefix}{metric}": value for metric, value in paper_metrics(records).items()}
    return Evaluation(paper, sound, sum(map(len, by_task.values())))


def evaluate_earthdial(path: Path, folder: str, config: RewardConfig) -> Evaluation:
    """Evaluate a result file of EarthDial; ``folder`` is that of the evaluation it belongs to.

    Raises:
        DataError: no such folder, or a record lacks a key or has a wrong value.
    """
    form = layout(folder, path.stem)
    records = [_earthdial_record(path, number, value, form) for number, value in _lines(path)]
    if not records:
        raise DataError(f"{path}: expected at least one record, found none")
    answered = [form.answered(record, i) for i, record in enumerate(records)]
    return Evaluation(form.paper(records), sound_metrics(answered, _embedder([form.task], config)), len(records))


def _read_records(path: Path, task: str | None, config: RewardConfig) -> dict[str, list[Answered]]:
    """The records of a file by task."""
    if task is not None and task not in TASKS:
        raise DataError(f"task {task!r}: expected one of {', '.join(TASKS)}, or an EarthDial folder with its format")
    by_task: dict[str, list[Answered]] = {}
    for number, value in _lines(path):
        try:
            example, response = scoring_record(value)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if task in (None, example.task):
            parsed = parse_response(response, config.think) if len(response) <= config.max_chars else None
            record = Answered(parsed.answer if parsed else "", example, well_formed=parsed is not None)
            by_task.setdefault(example.task, []).append(record)
    if not by_task:
        raise DataError(f"{path}: expected at least one record{f' of {task}' if task else ''}, found none")
    return by_task


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every line that is not blank.

    Raises:
        DataError: there is no file, or a line is no JSON.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a file of JSON lines, found {'a folder' if path.exists() else 'none'}")
    with path.open(encoding="utf-8", errors="surrogateescape") as source:
        for number, line in enumerate(source, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}, line {number}: expected one JSON object, {error}") from error


def _earthdial_record(path: Path, number: int, value: Any, form: Layout) -> dict[str, str]:
    """The value, checked against the layout of its file."""
    where = f"{path}, line {number}"
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {type(value).__name__}")
    for key in form.keys:
        if key not in value:
            raise DataError(f"{where}: expected the key {key!r}, found only {', '.join(map(repr, value))}")
        if not isinstance(value[key], str):
            raise DataError(f"{where}, {key}: expected a string, found {type(value[key]).__name__}")
    for key, known in form.values.items():
        if value[key] not in known:
            raise DataError(f"{where}, {key}: expected one of {', '.join(known)}, found {value[key]!r}")
    return value


def _embedder(tasks: Iterable[str], config: RewardConfig) -> SbertEmbedder | None:
    return SbertEmbedder.from_config(config.sbert) if any(map(needs_embedder, tasks)) else None
