"""Sources of a comparison: folders of training runs and evaluations, read and validated."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.core.files import read_object, read_objects
from geovlm_ray.evaluation.results import RESULTS
from geovlm_ray.evaluation.validation import read_completions, records_digest

MAX_FOLDERS = 10
"""Maximum number of folders in a comparison: more lines are hard to distinguish in a chart."""
RUN, EVALUATION = "training run", "evaluation"
T = TypeVar("T")


class HeldOut(BaseModel):
    """Rewards of held-out records after training, by task, in record order.

    ``records`` is a digest of the records, empty if the run does not tell which they were.
    """

    records: str = ""
    sampled: dict[str, Annotated[list[FiniteFloat], Field(min_length=1)]]
    greedy: dict[str, Annotated[list[FiniteFloat], Field(min_length=1)]]

    def counts(self) -> dict[str, int]:
        """Number of records by task."""
        return {task: len(rewards) for task, rewards in self.greedy.items()}


class BenchmarkResult(BaseModel):
    """The fields of a benchmark in ``results.json`` that a comparison uses."""

    title: str
    task: str
    n: int
    paper: dict[str, float]


class ComparedEvaluation(BaseModel):
    """The fields of ``results.json`` that a comparison uses, and the folder of the file."""

    model: str
    benchmarks: dict[str, BenchmarkResult]
    folder: Path


@dataclass(frozen=True)
class ComparedRun:
    """A training run or evaluation to compare.

    ``letter`` identifies it in tables; ``name`` is the shortest end of its path that no other source shares. A training
    run has a configuration and metrics, one object per step; an evaluation may have a configuration. ``held_out`` is
    None before the end of a run and for runs without held-out records. ``evaluation`` is the newest one of a training
    run.
    """

    letter: str
    name: str
    folder: Path
    kind: str
    config: Config | None
    metrics: list[dict[str, float]]
    held_out: HeldOut | None
    evaluation: ComparedEvaluation | None

    def __str__(self) -> str:
        return f"{self.letter} ({self.name})"


def read_sources(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read the folders.

    Raises:
        ConfigError: there are too few or too many folders, or duplicates.
        RunError: a folder is neither a training run nor an evaluation.
        DataError: a file has invalid content.
    """
    if not 2 <= len(folders) <= MAX_FOLDERS:
        paths = ", ".join(map(str, folders))
        raise ConfigError(f"expected 2 to {MAX_FOLDERS} runs or evaluations to compare, found {len(folders)}: {paths}")
    resolved = [folder.resolve() for folder in folders]
    duplicate = next((folder for folder, n in Counter(resolved).items() if n > 1), None)
    if duplicate:
        raise ConfigError(f"expected distinct runs or evaluations to compare, found {duplicate} more than once")
    return [
        _read(letter, name, folder)
        for letter, name, folder in zip(string.ascii_uppercase, _names(resolved), folders, strict=False)
    ]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other path shares."""
    ends = [[folder.parts[-n:] for n in range(1, len(folder.parts) + 1)] for folder in folders]
    counts = Counter(chain.from_iterable(ends))
    return [str(Path(*next(end for end in each if counts[end] == 1))) for each in ends]


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
    return ComparedRun(letter, name, folder, RUN, settings, metrics, _held_out(folder), evaluation)


def _step(results: Path) -> int:
    """The step of an in-loop evaluation, from its folder ``step-N``; -1 for other folder names."""
    step = results.parent.name.removeprefix("step-")
    return int(step) if step.isdecimal() else -1


def _metrics(file: Path) -> list[dict[str, float]]:
    rows = validated(TypeAdapter(list[dict[str, float]]), read_objects(file), file)
    for n, row in enumerate(rows, 1):
        if "step" not in row:
            raise DataError(f"{file}, line {n}: expected the key 'step', found only {', '.join(map(repr, row))}")
    return rows


def _held_out(folder: Path) -> HeldOut | None:
    summary, answers = folder / "summary.json", folder / "heldout_after.jsonl"
    rewards = read_object(summary).get("heldout_rewards") if summary.is_file() else None
    if rewards is None:
        return None
    after = validated(TypeAdapter(dict[str, HeldOut]), rewards, summary).get("after")
    if after is None:
        raise DataError(f"{summary}: heldout_rewards: expected the key 'after', found only {', '.join(rewards)}")
    sampled = {task: len(values) for task, values in after.sampled.items()}
    if sampled != after.counts():
        raise DataError(
            f"{summary}: heldout_rewards: expected as many sampled as greedy rewards, found {sampled} and "
            f"{after.counts()}"
        )
    return after.model_copy(update={"records": records_digest(read_completions(answers)) if answers.is_file() else ""})


def _evaluation(folder: Path) -> ComparedEvaluation:
    file = folder / RESULTS
    return validated(TypeAdapter(ComparedEvaluation), {**read_object(file), "folder": folder}, file)


def validated(adapter: TypeAdapter[T], value: Any, file: Path) -> T:
    """Validate a value that was read from ``file``; raises DataError if it does not match the adapter's type."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}: {where}: {first['msg']}, found {first['input']!r:.200}") from error
