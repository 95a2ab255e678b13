"""Provenance of a model for its model card: base model, training run, data and scores."""

from __future__ import annotations

import re
from collections import Counter
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
from geovlm_ray.model.config import PACKAGED
from geovlm_ray.serving.model_ref import RUN_FILES, ModelRef, adapter_base

RECORD_KEYS = ("dataset", "task", "licence")
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
MAX_LICENCE_CHARS = 100
TINY_LICENCE = "apache-2.0"
_LICENCE_ENTRY = re.compile(r"---\n.*?^license(?:_name)?: *(\S+) *$.*?^---$", re.M | re.S)


@dataclass(frozen=True)
class Provenance:
    """Provenance of a resolved model; unknown fields are empty or None.

    ``base`` is the display name of the initial model, ``hub`` its Hugging Face name, ``licence`` the licence in its
    folder. ``step`` is the training step of the checkpoint, ``sft`` the configuration of a preceding supervised
    fine-tuning. ``records`` is {(dataset, task, licence): number of records} of the training splits, None if the data
    cannot be read.
    """

    base: str
    hub: str | None
    licence: str
    step: int | None
    sft: Config | None
    tasks: tuple[str, ...]
    metrics: list[dict[str, float]] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[tuple[str, ...], int] | None = None


def provenance_of(ref: ModelRef, name: str) -> Provenance:
    """Collect the provenance of a model; ``name`` is the MODEL argument as the user gave it.

    Raises:
        DataError: a file of the run is invalid.
    """
    trained, run = ref.trained, ref.run
    base = trained.model.path if trained else adapter_base(ref.path) if ref.adapter else name
    sft = None
    if trained and (Path(base) / RUN_FILES[1]).is_file():
        sft = load_config(str(Path(base) / RUN_FILES[1]))
        base = sft.model.path
    first = sft or trained
    if first and first.sft.scratch:
        base = ""
    state = ref.path / "run_state.json"
    metrics = read_objects(run / "metrics.jsonl") if run and (run / "metrics.jsonl").is_file() else []
    summary = run / ("summary.json" if is_rl(ref) else "sft_summary.json") if run else None
    return Provenance(
        base=base if base in PACKAGED else hub_name(base) or Path(base).name,
        hub=hub_name(base),
        licence=_licence(base),
        step=int(read_object(state)["step"]) if state.is_file() else None,
        sft=sft,
        tasks=_tasks(trained, metrics),
        metrics=metrics,
        summary=read_object(summary) if summary and summary.is_file() else {},
        records=_records(trained.data) if trained else None,
    )


def is_rl(ref: ModelRef) -> bool:
    """Whether the model was trained by reinforcement learning."""
    return ref.run is not None and (ref.run / RUN_FILES[0]).is_file()


def hub_name(path: str) -> str | None:
    """The Hugging Face name of a model given by name or by a path in the hub cache; None for other folders."""
    cached = next((part for part in Path(path).parts if part.startswith("models--")), None)
    if cached:
        return "/".join(cached.split("--")[1:])
    is_name = path not in PACKAGED and not Path(path).exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path)
    return path if is_name else None


def read_evaluation(folder: Path) -> Results:
    """Read the results of an evaluation; raises DataError if they are missing or invalid."""
    if not (folder / RESULTS).is_file():
        raise DataError(f"evaluation {folder}: expected a {RESULTS} of `geovlm-ray evaluate`, found none")
    values = read_results(folder)
    try:
        benchmarks = {name: _result(result) for name, result in values["benchmarks"].items()}
        return Results(values["model"], benchmarks)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder / RESULTS}: expected results of `geovlm-ray evaluate`, found an invalid entry: {error}"
        ) from error


def own_evaluation(ref: ModelRef, step: int | None) -> Path | None:
    """The folder of the evaluation of a checkpoint during its training run, if there is one."""
    folder = ref.run / "evaluations" / f"step-{step:06d}" if ref.run and step is not None else None
    return folder if folder and (folder / RESULTS).is_file() else None


def _result(values: Mapping[str, Any]) -> Result:
    intervals = {name: Interval(**value) for name, value in values["sound"].items()}
    return Result(**{**values, "sound": intervals, "score": Interval(**values["score"])})


def _tasks(trained: Config | None, metrics: list[dict[str, float]]) -> tuple[str, ...]:
    """Tasks in the metrics of the run, else in its curriculum stages."""
    matches = (re.fullmatch(r"task/(\w+)/reward", name) for row in metrics for name in row)
    logged = dict.fromkeys(match[1] for match in matches if match)
    staged = dict.fromkeys(task for stage in (trained.data.stages if trained else ()) for task in stage.tasks)
    return tuple(logged or staged)


def _records(data: DataConfig) -> dict[tuple[str, ...], int] | None:
    if data.source != "parquet":
        return None
    counts: Counter[tuple[str, ...]] = Counter()
    try:
        for dataset in open_datasets(Path(data.path)):
            for shard in dataset.shards:
                table = pq.read_table(shard, columns=["split", *RECORD_KEYS], filters=[("split", "in", data.splits)])
                for row in table.group_by(list(RECORD_KEYS)).aggregate([([], "count_all")]).to_pylist():
                    counts[tuple(row[name] or "" for name in RECORD_KEYS)] += row["count_all"]
    except (DataError, pa.ArrowException, OSError):
        return None
    return counts


def _licence(base: str) -> str:
    """The licence of a model folder: the entry of its model card, else the first line of its licence file."""
    if base in PACKAGED:
        return TINY_LICENCE
    card = Path(base) / "README.md"
    entry = _LICENCE_ENTRY.match(read_text(card)) if card.is_file() else None
    if entry:
        return entry[1]
    file = next((Path(base) / name for name in LICENCE_FILES if (Path(base) / name).is_file()), None)
    lines = (line.strip() for line in read_text(file).splitlines()) if file else iter(())
    return next((line for line in lines if line), "")[:MAX_LICENCE_CHARS]
