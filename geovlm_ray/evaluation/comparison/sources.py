"""What is compared: folders of training runs and of evaluations, read and checked."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.evaluation.results import RESULTS

MOST = 10
"""Folders that are compared at once: as many as there are lines that can be told apart in a chart."""
RUN, EVALUATION = "training run", "evaluation"
T = TypeVar("T")


class HeldOut(BaseModel):
    """Rewards of held-out records after training, by task, in the order of the records."""

    sampled: dict[str, Annotated[list[FiniteFloat], Field(min_length=1)]]
    greedy: dict[str, Annotated[list[FiniteFloat], Field(min_length=1)]]

    def counts(self) -> dict[str, int]:
        """Records of each task."""
        return {task: len(rewards) for task, rewards in self.greedy.items()}


class BenchmarkResult(BaseModel):
    """What is taken of a benchmark from ``results.json``."""

    title: str
    task: str
    n: int
    paper: dict[str, float]


class Evaluation(BaseModel):
    """What is taken from ``results.json``, and the folder where it lies."""

    model: str
    benchmarks: dict[str, BenchmarkResult]
    folder: Path


@dataclass(frozen=True)
class ComparedRun:
    """A folder that is compared.

    ``letter`` is what it is called in tables, ``name`` as much of its path as tells it from the others. A training run
    has a configuration and metrics, one object a step; an evaluation may have a configuration. ``heldout`` is None
    until a run has ended, and without held-out records. The evaluation of a training run is its newest.
    """

    letter: str
    name: str
    folder: Path
    kind: str
    config: Config | None
    metrics: list[dict[str, float]]
    heldout: HeldOut | None
    evaluation: Evaluation | None

    def __str__(self) -> str:
        return f"{self.letter} ({self.name})"


def read_sources(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read the folders.

    Raises:
        ConfigError: they are too few or too many, or one comes twice.
        RunError: one is neither a training run nor an evaluation.
        DataError: a file does not hold what it should.
    """
    if not 2 <= len(folders) <= MOST:
        given = ", ".join(map(str, folders))
        raise ConfigError(f"expected 2 to {MOST} runs or evaluations to compare, found {len(folders)}: {given}")
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder, n in Counter(resolved).items() if n > 1), None)
    if twice:
        raise ConfigError(f"expected different runs or evaluations to compare, found {twice} more than once")
    return [
        _read(letter, name, folder)
        for letter, name, folder in zip(string.ascii_uppercase, _names(resolved), folders, strict=False)
    ]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of different paths by which they are told apart."""
    depths = [1] * len(folders)
    while True:
        names = [str(Path(*folder.parts[-depth:])) for folder, depth in zip(folders, depths, strict=True)]
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        depths = [depth + (counts[name] > 1) for name, depth in zip(names, depths, strict=True)]


def _read(letter: str, name: str, folder: Path) -> ComparedRun:
    config = folder / "config.yaml"
    settings = load_config(str(config)) if config.is_file() else None
    if (folder / RESULTS).is_file():
        return ComparedRun(letter, name, folder, EVALUATION, settings, [], None, _evaluation(folder))
    if settings is None or not (folder / "metrics.jsonl").is_file():
        raise RunError(
            f"{folder}: expected a training run (with config.yaml and metrics.jsonl) or an evaluation (with "
            f"{RESULTS}), found {'neither' if folder.is_dir() else 'no folder'}"
        )
    newest = max(folder.glob(f"evaluations/step-*/{RESULTS}"), key=_step, default=None)
    evaluation = _evaluation(newest.parent) if newest else None
    metrics = _metrics(folder / "metrics.jsonl")
    return ComparedRun(letter, name, folder, RUN, settings, metrics, _held_out(folder / "summary.json"), evaluation)


def _step(results: Path) -> int:
    """The step of an evaluation on the way; -1 where the folder is not named so."""
    step = results.parent.name.removeprefix("step-")
    return int(step) if step.isdecimal() else -1


def _metrics(file: Path) -> list[dict[str, float]]:
    rows = checked(TypeAdapter(list[dict[str, float]]), read_objects(file), file)
    for n, row in enumerate(rows, 1):
        if "step" not in row:
            raise DataError(f"{file}, line {n}: expected the key 'step', found only {', '.join(map(repr, row))}")
    return rows


def _held_out(summary: Path) -> HeldOut | None:
    rewards = read_object(summary).get("heldout_rewards") if summary.is_file() else None
    if rewards is None:
        return None
    after = checked(TypeAdapter(dict[str, HeldOut]), rewards, summary).get("after")
    if after is None:
        raise DataError(f"{summary}: heldout_rewards: expected the key 'after', found only {', '.join(rewards)}")
    sampled = {task: len(values) for task, values in after.sampled.items()}
    if sampled != after.counts():
        raise DataError(
            f"{summary}: heldout_rewards: expected as many sampled as greedy rewards, found {sampled} and "
            f"{after.counts()}"
        )
    return after


def _evaluation(folder: Path) -> Evaluation:
    file = folder / RESULTS
    return checked(TypeAdapter(Evaluation), {**read_object(file), "folder": folder}, file)


def checked(form: TypeAdapter[T], value: Any, file: Path) -> T:
    """A value read from a file in a form.

    Raises:
        DataError: it has another one.
    """
    try:
        return form.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}: {where}: {first['msg']}, found {first['input']!r:.200}") from error
