"""What the parts of the loop cost, measured: from the JSON of `benchmarks.throughput`, or from a run's own records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, read_objects

# The upper bounds are far above what runs have, and keep a simulation of a mistyped number from never ending.
Count = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
Lengths = Annotated[tuple[Annotated[tuple[Tokens, ...], Field(min_length=1)], ...], Field(min_length=1)]

ROLLOUT_FILES = 50
"""Newest steps of a run whose completions give the lengths."""


class Rates(BaseModel):
    """Seconds that one engine, one reward actor and the learner take, and the settings they were measured with.

    An engine takes ``prefill_s_per_prompt`` for each prompt, and then for every iteration, which gives each of its n
    running completions a token, ``decode_s_per_step + n * decode_s_per_token``. The learner's costs count all groups
    of a batch and all their tokens, also those of groups that it passes over. ``sync_s`` is a version's way to the
    engines until they hold it, ``probe_s`` the draw of the parity check, ``parity_s`` the learner's part of it for one
    engine, ``overhead_s`` what is left of a step. ``completion_tokens`` are the lengths in drawn groups.
    ``unmeasured`` says in words what the source does not tell, and what is put in its place.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=True)

    prompts_per_step: Count
    group_size: Annotated[int, Field(ge=2, le=2**12)]
    max_staleness: Annotated[int, Field(ge=0, le=64)]
    in_flight: bool
    rollout_actors: Count
    reward_actors: Count
    learner_gpus: Count
    prefill_s_per_prompt: Seconds
    decode_s_per_step: Seconds
    decode_s_per_token: Annotated[float, Field(ge=1e-12, le=1e6)]
    learner_s_per_group: Seconds
    learner_s_per_token: Annotated[float, Field(ge=1e-12, le=1e6)]
    reward_s_per_completion: Seconds
    sync_s: Seconds
    probe_s: Seconds
    parity_s: Seconds
    overhead_s: Seconds
    completion_tokens: Lengths
    unmeasured: tuple[str, ...] = ()

    @property
    def mean_tokens(self) -> float:
        """Mean length of a completion in tokens, each group counted once."""
        return float(np.mean([np.mean(group) for group in self.completion_tokens]))


def read_rates(source: Path) -> Rates:
    """Rates from a JSON of `benchmarks.throughput`, or from the directory of a run.

    Raises:
        DataError: the source is neither, or lacks a rate, or has one that is out of range.
    """
    if source.is_dir():
        return of_run(source)
    if not source.is_file():
        raise DataError(f"{source}: expected the JSON of benchmarks.throughput or a run directory, found nothing")
    found = read_object(source).get("rates")
    if not isinstance(found, dict):
        raise DataError(
            f"{source}: expected an object 'rates', found {type(found).__name__}; "
            "write the file anew with `python -m benchmarks.throughput --json FILE`"
        )
    return of_values(found, f"{source}: rates")


def of_values(values: Mapping[str, Any], where: str) -> Rates:
    """Rates from the values of a JSON object; keys that are no rate are passed over.

    Raises:
        DataError: one is missing or out of range; the message begins with ``where``.
    """
    try:
        return Rates.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
        message = "a value" if first["type"] == "missing" else first["msg"].removeprefix("Input should be ")
        raise DataError(f"{where}.{key}: expected {message}, found {found}") from error


def of_run(folder: Path) -> Rates:
    """Rates from the records of a run that draws and trains in turns; its first step, the warm-up, is left out.

    Raises:
        DataError: a file is missing or too short, or the run drew its batches ahead, so that its records do not tell
            the engines' time from the learner's, or drew in one process, where its records do not time the draw.
    """
    for name in ("config.yaml", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: expected the directory of a run with its {name}, found no such file")
    config = load_config(str(folder / "config.yaml"))
    if config.loop.max_staleness:
        raise DataError(
            f"{folder}: expected a run with loop.max_staleness=0, found {config.loop.max_staleness}: where batches are "
            "drawn ahead, its records do not tell how long a draw takes; run a few steps with loop.max_staleness=0, or "
            "`python -m benchmarks.throughput --json FILE`"
        )
    rows = settled(read_objects(folder / "metrics.jsonl"), str(folder / "metrics.jsonl"))
    tokens = column(rows, "rollout/tokens", str(folder / "metrics.jsonl"))
    seconds = {
        part: column(rows, f"seconds/{part}", str(folder / "metrics.jsonl"))
        for part in ("rollout", "resample", "parity", "learner", "sync", "step")
    }
    left = seconds["step"] - sum(seconds[part] for part in ("rollout", "resample", "parity", "learner", "sync"))
    if _median(left) > _median(seconds["step"]) / 2:
        raise DataError(
            f"{folder}: expected the parts of a step to fill it, found {_median(left):.3g} of "
            f"{_median(seconds['step']):.3g} s in none of them, as in runs with --local, whose draws are not timed"
        )
    lengths, unmeasured = _lengths(folder, rows)
    engines = config.placement.rollout.actors
    values = {
        **settings(config),
        "prefill_s_per_prompt": 0.0,
        "decode_s_per_step": 0.0,
        "decode_s_per_token": _median((seconds["parity"] + seconds["rollout"]) / tokens) * engines,
        "learner_s_per_group": 0.0,
        "learner_s_per_token": _median(seconds["learner"] / tokens),
        "reward_s_per_completion": 0.0,
        "sync_s": _median(seconds["sync"]),
        "probe_s": 0.0,
        "parity_s": _median(seconds["parity"]) / engines,
        "overhead_s": max(0.0, _median(left + seconds["resample"])),
        "completion_tokens": lengths,
        "unmeasured": [
            *unmeasured,
            "a draw's fixed costs (a prompt's prefill, an iteration with few completions): all time goes by tokens",
            "the rewards apart from the draw: what they add to it counts as drawing",
            "the learner's cost of a prompt: all time goes by tokens",
            "the draw of the parity check apart from the sync: it does not grow with the engines here",
        ],
    }
    return of_values(values, f"{folder}: rates")


def settings(config: Config) -> dict[str, int | bool]:
    """The settings of a run that its rates go with, under their names in `Rates`."""
    return {
        "prompts_per_step": config.rollout.prompts_per_step,
        "group_size": config.rollout.group_size,
        "max_staleness": config.loop.max_staleness,
        "in_flight": config.sync.mode == "in_flight",
        "rollout_actors": config.placement.rollout.actors,
        "reward_actors": config.placement.reward.actors,
        "learner_gpus": config.placement.learner.actors,
    }


def settled(rows: Sequence[dict[str, Any]], where: str) -> Sequence[dict[str, Any]]:
    """The rows of a run's metrics without the first, in which engines and kernels warm up.

    Raises:
        DataError: nothing is left.
    """
    if len(rows) < 2:
        raise DataError(f"{where}: expected at least 2 steps, of which the first is left out, found {len(rows)}")
    return rows[1:]


def column(rows: Sequence[dict[str, Any]], key: str, where: str) -> np.ndarray:
    """One metric of every row, [rows].

    Raises:
        DataError: a row lacks it, or holds no positive number (a part of a step always takes some time).
    """
    for row in rows:
        value = row.get(key)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise DataError(f"{where}, step {row.get('step')}: {key}: expected a positive number, found {value!r}")
    return np.array([row[key] for row in rows], dtype=float)


def _lengths(folder: Path, rows: Sequence[dict[str, Any]]) -> tuple[list[list[int]], list[str]]:
    """Completions' lengths by group; without the run's rollouts the mean stands for all of them."""
    files = sorted((folder / "rollouts").glob("step-*.parquet"))[-ROLLOUT_FILES:]
    if not files:
        mean = _median(column(rows, "completion/length_mean", str(folder / "metrics.jsonl")))
        return [[max(1, round(mean))]], ["the spread of completions' lengths: all are as long as the mean"]
    groups: dict[tuple[int, int], list[int]] = {}
    for step, path in enumerate(files):
        for group, length in _group_lengths(path):
            groups.setdefault((step, group), []).append(max(1, length))
    return list(groups.values()), []


def _group_lengths(path: Path) -> list[tuple[int, int]]:
    """The group and the length of every completion of a step."""
    try:
        table = pq.read_table(path, columns=["group_id", "token_ids"])
        lengths = pc.list_value_length(table["token_ids"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: expected Parquet with group_id and lists token_ids, found: {error}") from error
    return list(zip(table["group_id"].to_pylist(), lengths.to_pylist(), strict=True))


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
