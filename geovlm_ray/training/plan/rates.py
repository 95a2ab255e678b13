"""Measured costs of the loop's components, from the JSON of `benchmarks.throughput` or the records of a run."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, read_objects

# Upper bounds far above real runs catch mistyped numbers.
Count = Annotated[int, Field(ge=1, le=2**16)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
Lengths = Annotated[tuple[Annotated[tuple[Tokens, ...], Field(min_length=1)], ...], Field(min_length=1)]

CONFIG_KEYS = {
    "rollout_actors": "placement.rollout.actors",
    "learner_gpus": "placement.learner.actors",
    "reward_actors": "placement.reward.actors",
    "prompts_per_step": "rollout.prompts_per_step",
    "group_size": "rollout.group_size",
    "max_staleness": "loop.max_staleness",
}
"""Configuration keys of the fields of `Setup`, except ``in_flight``."""
PHASES = ("rollout", "resample", "parity", "learner", "sync")
NOT_IN_RUNS = ("prefill_s_per_prompt", "decode_s_per_step", "learner_s_per_group", "reward_s_per_completion", "probe_s")


class LengthDistribution:
    """Completion lengths in tokens, [groups][completions]; ``mean`` and ``std`` are of the groups' mean lengths."""

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        means = [sum(group) / len(group) for group in groups]
        self.mean, self.std = float(np.mean(means)), float(np.std(means))
        self._longest = np.sort([max(group) for group in groups])

    def longest(self, prompts: int) -> float:
        """Expected length of the longest completion of a batch, whose groups are drawn from the measured ones."""
        n = len(self._longest)
        return float(np.diff((np.arange(n + 1) / n) ** prompts) @ self._longest)

    def busiest(self, prompts: int, group_size: int, engines: int) -> float:
        """Expected tokens of the engine with the most tokens, if every engine gets as many prompts.

        The expected maximum of R normal variables, R = engines, each the sum of n groups of G completions, is
        G (n mean + sqrt(n) std q((R - 3/8) / (R + 1/4))) with the quantiles q of the normal distribution (Blom, 1958).
        """
        n, engines = math.ceil(prompts / engines), min(engines, prompts)
        deviations = NormalDist().inv_cdf((engines - 3 / 8) / (engines + 1 / 4))
        return group_size * (n * self.mean + math.sqrt(n) * self.std * deviations)


class Setup(BaseModel):
    """Actors and batch of a training loop; ``in_flight``: engines load weights between two of their iterations."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=True)

    rollout_actors: Count
    learner_gpus: Count
    reward_actors: Count
    prompts_per_step: Count
    group_size: Annotated[int, Field(ge=2, le=2**12)]
    max_staleness: Annotated[int, Field(ge=0, le=64)]
    in_flight: bool

    @classmethod
    def of(cls, config: Config) -> Setup:
        """The loop of a run configuration."""
        settings = {name: attrgetter(key)(config) for name, key in CONFIG_KEYS.items()}
        return cls(**settings, in_flight=config.sync.mode == "in_flight")

    @property
    def overrides(self) -> list[str]:
        """Configuration overrides that produce the setup."""
        settings = [f"{key}={getattr(self, name)}" for name, key in CONFIG_KEYS.items()]
        return [*settings, f"sync.mode={'in_flight' if self.in_flight else 'drained'}"]


class Rates(Setup):
    """Costs in seconds of one engine, one reward actor and the learner, and the setup they were measured in.

    An engine takes ``prefill_s_per_prompt`` per prompt, ``decode_s_per_step`` per iteration, which adds a token to each
    running completion, and ``decode_s_per_token`` per token. The learner's costs are per group and per token of the
    whole batch, including groups that it skips. ``sync_s`` is the time until all engines hold new weights, ``probe_s``
    the generation of the parity probe, ``parity_s`` the learner's log-probs of the probe of one engine, ``overhead_s``
    the rest of a step. ``unmeasured`` describes how the costs that the source does not contain are approximated.
    """

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

    @cached_property
    def lengths(self) -> LengthDistribution:
        """Distribution of ``completion_tokens``."""
        return LengthDistribution(self.completion_tokens)


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
        wanted = "an object 'rates', as written by `python -m benchmarks.throughput --json FILE`"
        raise DataError(f"{source}: expected {wanted}, found {type(found).__name__}")
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
        key = ".".join(map(str, (where, *first["loc"])))
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
        message = "a value" if first["type"] == "missing" else first["msg"].removeprefix("Input should be ")
        raise DataError(f"{key}: expected {message}, found {found}") from error


def rates_from_run(folder: Path) -> Rates:
    """Rates from the records of an on-policy Ray run without its first step.

    Raises:
        DataError: a file is missing or too short; ``loop.max_staleness`` > 0, where rollout and training times overlap;
            or the run used ``--local``, whose records do not include rollout time.
    """
    config, metrics = folder / "config.yaml", folder / "metrics.jsonl"
    for file in (config, metrics):
        if not file.is_file():
            raise DataError(f"{folder}: expected a run directory with its {file.name}, found no such file")
    setup = Setup.of(load_config(str(config)))
    if setup.max_staleness:
        raise DataError(
            f"{folder}: expected a run with loop.max_staleness=0, found {setup.max_staleness}, which does not record "
            "the rollout time; run a few steps on-policy, or `python -m benchmarks.throughput --json FILE`"
        )
    measured = columns(read_objects(metrics), str(metrics))
    median = {name: float(np.median(values)) for name, values in measured.items()}
    overhead = float(np.median(measured["step"] - sum(measured[phase] for phase in PHASES)))
    if overhead > median["step"] / 2:
        raise DataError(
            f"{folder}: expected timed phases to cover most of a step, found {overhead:.3g} of {median['step']:.3g} s "
            "in none of them, as in runs with --local, which do not time the rollout"
        )
    prompts, completions = setup.prompts_per_step, setup.prompts_per_step * setup.group_size
    # Differences of successive steps: the trend of the lengths over the run hardly counts.
    changes = np.diff(measured["tokens"]) / completions
    spread = math.sqrt(prompts * np.mean(changes**2) / 2) if len(changes) else 0.0
    completion_tokens = [[max(1, round(median["tokens"] / completions + change))] for change in (-spread, spread)]
    lengths = LengthDistribution(completion_tokens)
    # Engines generate during the parity check; the busiest one ends the rollout.
    busiest = lengths.busiest(prompts, setup.group_size, setup.rollout_actors)
    values = {
        **setup.model_dump(),
        **dict.fromkeys(NOT_IN_RUNS, 0.0),
        "decode_s_per_token": (median["parity"] + median["rollout"]) / busiest,
        "learner_s_per_token": median["learner"] / (completions * lengths.mean),
        "sync_s": median["sync"],
        "parity_s": median["parity"] / setup.rollout_actors,
        "overhead_s": max(0.0, overhead + median["resample"]),
        "completion_tokens": completion_tokens,
        "unmeasured": [
            "costs per prompt and iteration: counted per token, so that more engines gain less than predicted",
            "rewards and the generation of the parity probe: counted as rollout and sync",
            "the spread of completion lengths: estimated from the tokens of successive steps",
        ],
    }
    return rates_from_values(values, f"{folder}: rates")


def columns(rows: Sequence[dict[str, Any]], where: str) -> dict[str, np.ndarray]:
    """Seconds per phase and ``step``, and generated ``tokens``, [steps], from a run's metrics without step 1 (warm-up).

    Raises:
        DataError: there are fewer than 2 rows, or a metric is not a positive finite number; begins with ``where``.
    """
    if len(rows) < 2:
        raise DataError(f"{where}: expected at least 2 steps (the first is excluded as warm-up), found {len(rows)}")
    keys = {**{phase: f"seconds/{phase}" for phase in (*PHASES, "step")}, "tokens": "rollout/tokens"}
    for row, key in itertools.product(rows[1:], keys.values()):
        value = row.get(key)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"{where}, step {row.get('step')}: {key}: expected a positive number, found {value!r}")
    return {name: np.array([row[key] for row in rows[1:]], dtype=float) for name, key in keys.items()}
