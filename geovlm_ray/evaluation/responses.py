"""Evaluate a file of responses: read it, and compute the metrics of its tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import DataError, expected_one_of
from geovlm_ray.core.files import text_lines
from geovlm_ray.data.records import scoring_record
from geovlm_ray.evaluation.metrics.bootstrap import Interval, mean_interval
from geovlm_ray.evaluation.metrics.earthdial_files import Layout, layout
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, needs_embedder, sound_metrics
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.grammar import parse_response


@dataclass(frozen=True)
class ResponseMetrics:
    """Both metric sets of n records; ``sound`` has confidence intervals."""

    paper: dict[str, float]
    sound: dict[str, Interval]
    n: int


def evaluate_records(path: Path, task: str | None, config: RewardConfig) -> ResponseMetrics:
    """Evaluate records in the format of ``geovlm-ray score``; with ``task``, only the records of that task.

    A response that breaks the answer grammar counts as an empty answer; ``format`` is the share of responses that
    follow it. With records of several tasks, metrics are named ``TASK/METRIC``.

    Raises:
        DataError: a line is invalid, or there is no record (of the task).
    """
    by_task = _read_records(path, task, config)
    embedder = _embedder(by_task, config)
    paper: dict[str, float] = {}
    sound: dict[str, Interval] = {}
    for name, records in by_task.items():
        prefix = f"{name}/" if len(by_task) > 1 else ""
        metrics = {"format": mean_interval([r.well_formed for r in records]), **sound_metrics(records, embedder)}
        sound |= {f"{prefix}{metric}": value for metric, value in metrics.items()}
        paper |= {f"{prefix}{metric}": value for metric, value in paper_metrics(records).items()}
    return ResponseMetrics(paper, sound, sum(map(len, by_task.values())))


def evaluate_earthdial(path: Path, folder: str, config: RewardConfig) -> ResponseMetrics:
    """Evaluate a result file of EarthDial; ``folder`` names its evaluation folder, such as ``rs_detection``.

    Raises:
        DataError: the folder is unknown, or a record lacks a key or has an invalid value.
    """
    file_layout = layout(folder, path.stem)
    records = [_earthdial_record(path, number, value, file_layout) for number, value in _lines(path)]
    if not records:
        raise DataError(f"{path}: expected at least one record, found none")
    answered = [file_layout.answered_example(record, i) for i, record in enumerate(records)]
    sound = sound_metrics(answered, _embedder([file_layout.task], config))
    return ResponseMetrics(file_layout.paper(records), sound, len(records))


def _read_records(path: Path, task: str | None, config: RewardConfig) -> dict[str, list[AnsweredExample]]:
    """Records of a file by task."""
    if task is not None and task not in TASKS:
        raise DataError(f"--task, or an EarthDial folder with its format: {expected_one_of(TASKS, task)}")
    by_task: dict[str, list[AnsweredExample]] = {}
    for number, value in _lines(path):
        try:
            example, response = scoring_record(value)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if task in (None, example.task):
            parsed = parse_response(response, config.think) if len(response) <= config.max_chars else None
            record = AnsweredExample(parsed.answer if parsed else "", example, well_formed=parsed is not None)
            by_task.setdefault(example.task, []).append(record)
    if not by_task:
        raise DataError(f"{path}: expected at least one record{f' of {task}' if task else ''}, found none")
    return by_task


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and JSON value of every non-blank line."""
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: expected one JSON object: {error}") from error


def _earthdial_record(path: Path, number: int, value: Any, file_layout: Layout) -> dict[str, str]:
    """Check a record against the layout of its file."""
    where = f"{path}, line {number}"
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {type(value).__name__}")
    for key in file_layout.keys:
        if key not in value:
            raise DataError(f"{where}: expected the key {key!r}, found only {', '.join(map(repr, value))}")
        if not isinstance(value[key], str):
            raise DataError(f"{where}, {key}: expected a string, found {type(value[key]).__name__}")
    for key, known in file_layout.values.items():
        if value[key] not in known:
            raise DataError(f"{where}, {key}: expected one of {', '.join(known)}, found {value[key]!r}")
    return value


def _embedder(tasks: Iterable[str], config: RewardConfig) -> SbertEmbedder | None:
    return SbertEmbedder.from_config(config.sbert) if any(map(needs_embedder, tasks)) else None
