"""Measured costs of the loop's components, from the JSON of `benchmarks.throughput` or the records of a run."""

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

# Upper bounds far above real runs: a mistyped number must not make the simulation endless.
Count = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
Lengths = Annotated[tuple[Annotated[tuple[Tokens, ...], Field(min_length=1)], ...], Field(min_length=1)]

ROLLOUT_FILES = 50
"""Number of latest steps whose completions are read for the length distribution."""


class Rates(BaseModel):
    """Costs in seconds of one engine, one reward actor and the learner, and the settings they were measured with.

    An engine takes ``prefill_s_per_prompt`` per prompt, and per iteration, which adds a token to each of n running
    completions, ``decode_s_per_step + n * decode_s_per_token``. The learner's costs are per group and per token of the
    whole batch, including groups that it skips. ``sync_s`` is the time until all engines hold new weights, ``probe_s``
    the generation of the parity probe, ``parity_s`` the learner's log-probs of the probe of one engine, ``overhead_s``
    the rest of a step. ``completion_tokens`` are completion lengths, [groups][completions]. ``unmeasured`` describes
    the costs that the source does not contain, and how they are approximated.
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
        """Mean completion length in tokens, averaged per group, then over groups."""
        return float(np.mean([np.mean(group) for group in self.completion_tokens]))


def read_rates(source: Path) -> Rates:
    """Rates from the JSON of `benchmarks.throughput` or from a run directory.

    Raises:
        DataError: the source is neither, or a rate is missing or out of range.
    """
    if source.is_dir():
        return rates_from_run(source)
    if not source.is_file():
        raise DataError(f"{source}: expected the JSON of benchmarks.throughput or a run directory, found nothing")
    found = read_object(source).get("rates")
    if not isinstance(found, dict):
        raise DataError(
            f"{source}: expected an object 'rates', found {type(found).__name__}; "
            "create the file with `python -m benchmarks.throughput --json FILE`"
        )
    return rates_from_values(found, f"{source}: rates")


def rates_from_values(values: Mapping[str, Any], where: str) -> Rates:
    """Rates from the values of a JSON object; unknown keys are ignored.

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


def rates_from_run(folder: Path) -> Rates:
    """Rates from the records of an on-policy Ray run; its first step (warm-up) is excluded.

    Raises:
        DataError: a file is missing or too short; ``loop.max_staleness`` > 0, where rollout and training times overlap;
            or the run used ``--local``, whose records do not include rollout time.
    """
    for name in ("config.yaml", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: expected a run directory with its {name}, found no such file")
    config = load_config(str(folder / "config.yaml"))
    if config.loop.max_staleness:
        raise DataError(
            f"{folder}: expected a run with loop.max_staleness=0, found {config.loop.max_staleness}, which does not "
            "record the rollout time; run a few steps with loop.max_staleness=0, or "
            "`python -m benchmarks.throughput --json FILE`"
        )
    rows = without_warmup(read_objects(folder / "metrics.jsonl"), str(folder / "metrics.jsonl"))
    tokens = column(rows, "rollout/tokens", str(folder / "metrics.jsonl"))
    seconds = {
        phase: column(rows, f"seconds/{phase}", str(folder / "metrics.jsonl"))
        for phase in ("rollout", "resample", "parity", "learner", "sync", "step")
    }
    rest = seconds["step"] - sum(seconds[phase] for phase in ("rollout", "resample", "parity", "learner", "sync"))
    if _median(rest) > _median(seconds["step"]) / 2:
        raise DataError(
            f"{folder}: expected timed phases to cover most of a step, found {_median(rest):.3g} of "
            f"{_median(seconds['step']):.3g} s in none of them, as in runs with --local, which do not time the rollout"
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
        "overhead_s": max(0.0, _median(rest + seconds["resample"])),
        "completion_tokens": lengths,
        "unmeasured": [
            *unmeasured,
            "fixed costs of the rollout (prefill, iterations with few completions): counted per token",
            "reward time separately: the part that delays the rollout counts as rollout",
            "the learner's cost per prompt: counted per token",
            "generation of the parity probe separately: counted as sync",
        ],
    }
    return rates_from_values(values, f"{folder}: rates")


def settings(config: Config) -> dict[str, int | bool]:
    """The settings of a run under which rates are measured, by their names in `Rates`."""
    return {
        "prompts_per_step": config.rollout.prompts_per_step,
        "group_size": config.rollout.group_size,
        "max_staleness": config.loop.max_staleness,
        "in_flight": config.sync.mode == "in_flight",
        "rollout_actors": config.placement.rollout.actors,
        "reward_actors": config.placement.reward.actors,
        "learner_gpus": config.placement.learner.actors,
    }


def without_warmup(rows: Sequence[dict[str, Any]], where: str) -> Sequence[dict[str, Any]]:
    """The rows of a run's metrics without the first step, in which engines and kernels warm up.

    Raises:
        DataError: there are fewer than 2 rows.
    """
    if len(rows) < 2:
        raise DataError(f"{where}: expected at least 2 steps (the first is excluded as warm-up), found {len(rows)}")
    return rows[1:]


def column(rows: Sequence[dict[str, Any]], key: str, where: str) -> np.ndarray:
    """One metric of every row, [rows].

    Raises:
        DataError: a row lacks it, or its value is not a positive finite number.
    """
    for row in rows:
        value = row.get(key)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise DataError(f"{where}, step {row.get('step')}: {key}: expected a positive number, found {value!r}")
    return np.array([row[key] for row in rows], dtype=float)


def _lengths(folder: Path, rows: Sequence[dict[str, Any]]) -> tuple[list[list[int]], list[str]]:
    """Completion lengths [groups][completions] and unmeasured costs; without rollout files only the mean length."""
    files = sorted((folder / "rollouts").glob("step-*.parquet"))[-ROLLOUT_FILES:]
    if not files:
        mean = _median(column(rows, "completion/length_mean", str(folder / "metrics.jsonl")))
        return [[max(1, round(mean))]], ["the spread of completion lengths: all are set to the mean"]
    groups: dict[tuple[int, int], list[int]] = {}
    for step, path in enumerate(files):
        for group, length in _group_lengths(path):
            groups.setdefault((step, group), []).append(max(1, length))
    return list(groups.values()), []


def _group_lengths(path: Path) -> list[tuple[int, int]]:
    """``group_id`` and length in tokens of every completion of a step."""
    try:
        table = pq.read_table(path, columns=["group_id", "token_ids"])
        lengths = pc.list_value_length(table["token_ids"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: expected Parquet columns group_id and token_ids (lists), found: {error}") from error
    return list(zip(table["group_id"].to_pylist(), lengths.to_pylist(), strict=True))


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
