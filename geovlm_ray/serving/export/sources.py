"""What a model card says about a model's past: its base, its training run, its data and its scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, read_objects, read_text
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.evaluation.metrics.bootstrap import Interval
from geovlm_ray.evaluation.results import RESULTS, Result, Results, read_results
from geovlm_ray.model.config import TINY
from geovlm_ray.serving.model_ref import ADAPTER_FILE, RUN_FILES, ModelRef

DESCRIBED = ("dataset", "task", "licence")
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
LONGEST_LICENCE = 100
TINY_LICENCE = "apache-2.0"
_STATED = re.compile(r"---\n.*?^license(?:_name)?: *(\S+) *$.*?^---$", re.M | re.S)


@dataclass(frozen=True)
class Past:
    """What is known of a ref model, each part empty where nothing is.

    ``base`` is what training began with, as the card calls it, and ``hub`` its name on the Hugging Face hub.
    ``licence`` is what the base's folder says. ``warmed`` are the settings of a fine-tuning before the run. ``records``
    are {(dataset, task, licence): number of records} that could be trained on; None where the data is not to be read.
    """

    base: str
    hub: str | None
    licence: str
    step: int | None
    warmed: Config | None
    tasks: tuple[str, ...]
    metrics: list[dict[str, float]] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[tuple[str, ...], int] | None = None


def past_of(ref: ModelRef, named: str) -> Past:
    """What is known of a model that the user named so.

    Raises:
        DataError: a file of its run does not hold what it should.
    """
    trained, run = ref.trained, ref.run
    base = trained.model.path if trained else _base_name(ref, named)
    warmed = None
    if trained and (Path(base) / RUN_FILES[1]).is_file():
        warmed = load_config(str(Path(base) / RUN_FILES[1]))
        base = warmed.model.path
    first = warmed or trained
    if first and first.sft.scratch:
        base = ""
    metrics = _metrics(run) if run else []
    summary = run / ("summary.json" if is_rl(ref) else "sft_summary.json") if run else None
    return Past(
        base=TINY if base == TINY else hub_name(base) or Path(base).name,
        hub=hub_name(base),
        licence=_licence(base),
        step=_step(ref),
        warmed=warmed,
        tasks=_tasks(trained, metrics),
        metrics=metrics,
        summary=read_object(summary) if summary and summary.is_file() else {},
        records=_records(trained.data) if trained else None,
    )


def is_rl(ref: ModelRef) -> bool:
    """Whether a model comes from reinforcement learning."""
    return ref.run is not None and (ref.run / RUN_FILES[0]).is_file()


def hub_name(path: str) -> str | None:
    """The name on the hub of a model that was given by it or lies in the hub's cache."""
    cached = next((part for part in Path(path).parts if part.startswith("models--")), None)
    if cached:
        return "/".join(cached.split("--")[1:])
    is_name = path != TINY and not Path(path).exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path)
    return path if is_name else None


def read_evaluation(folder: Path) -> Results:
    """The results of an evaluation.

    Raises:
        DataError: the folder holds none.
    """
    if not (folder / RESULTS).is_file():
        raise DataError(f"evaluation {folder}: expected a {RESULTS} of `geovlm-ray evaluate`, found none")
    found = read_results(folder)
    try:
        benchmarks = {name: _result(values) for name, values in found["benchmarks"].items()}
        return Results(found["model"], benchmarks)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / RESULTS}: expected the results of an evaluation, found others: {error}") from error


def own_evaluation(ref: ModelRef, step: int | None) -> Path | None:
    """The folder of the evaluation that a run made of a checkpoint on the way."""
    folder = ref.run / "evaluations" / f"step-{step:06d}" if ref.run and step is not None else None
    return folder if folder and (folder / RESULTS).is_file() else None


def _result(values: Mapping[str, Any]) -> Result:
    intervals = {name: Interval(**value) for name, value in values["sound"].items()}
    return Result(**{**values, "sound": intervals, "score": Interval(**values["score"])})


def _base_name(ref: ModelRef, named: str) -> str:
    if not ref.adapter:
        return named
    return str(read_object(ref.path / ADAPTER_FILE).get("base_model_name_or_path"))


def _step(ref: ModelRef) -> int | None:
    """Training steps behind the weights, as their checkpoint says."""
    state = ref.path / "run_state.json"
    return int(read_object(state)["step"]) if state.is_file() else None


def _metrics(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    return read_objects(file) if file.is_file() else []


def _tasks(trained: Config | None, metrics: list[dict[str, float]]) -> tuple[str, ...]:
    """Tasks that were trained on."""
    seen = (re.fullmatch(r"task/(\w+)/reward", name) for row in metrics for name in row)
    drawn = dict.fromkeys(hit[1] for hit in seen if hit)
    staged = dict.fromkeys(task for stage in (trained.data.stages if trained else ()) for task in stage.tasks)
    return tuple(drawn or staged)


def _records(data: DataConfig) -> dict[tuple[str, ...], int] | None:
    if data.source != "parquet":
        return None
    counts: dict[tuple[str, ...], int] = {}
    try:
        for dataset in open_datasets(Path(data.path)):
            for shard in dataset.shards:
                table = pq.read_table(shard, columns=["split", *DESCRIBED], filters=[("split", "in", data.splits)])
                for row in table.group_by(list(DESCRIBED)).aggregate([([], "count_all")]).to_pylist():
                    key = tuple(row[name] or "" for name in DESCRIBED)
                    counts[key] = counts.get(key, 0) + row["count_all"]
    except (DataError, pa.ArrowException, OSError):
        return None
    return counts


def _licence(base: str) -> str:
    """What the folder of a model says of its licence: the card's entry, else the first line of the licence itself."""
    if base == TINY:
        return TINY_LICENCE
    card = Path(base) / "README.md"
    stated = _STATED.match(read_text(card)) if card.is_file() else None
    if stated:
        return stated[1]
    file = next((Path(base) / name for name in LICENCE_FILES if (Path(base) / name).is_file()), None)
    lines = (line.strip() for line in read_text(file).splitlines()) if file else iter(())
    return next((line for line in lines if line), "")[:LONGEST_LICENCE]
