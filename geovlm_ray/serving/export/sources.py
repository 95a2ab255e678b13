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
from pydantic import BaseModel, TypeAdapter

from geovlm_ray.config import Config, load_stored
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import check_plain, read_object, read_text
from geovlm_ray.core.validation import validated
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.evaluation.results import RESULTS, Results, read_results
from geovlm_ray.model.config import PACKAGED
from geovlm_ray.report.metrics import StepMetrics, read_metrics
from geovlm_ray.serving.model_ref import RUN_FILES, ModelRef, adapter_base

RECORD_KEYS = ("dataset", "task", "licence")
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
MAX_LICENCE_CHARS = 100
TINY_LICENCE = "apache-2.0"
SHOWN_SECTIONS = ("model", "sft")
"""Sections of the configuration of a preceding fine-tuning that the card shows."""
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
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
    metrics: list[StepMetrics] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[tuple[str, ...], int] | None = None


class _State(BaseModel):
    """The field of a checkpoint's state that the card uses."""

    step: int


def provenance_of(ref: ModelRef, name: str) -> Provenance:
    """Collect the provenance of a model; ``name`` is the MODEL argument as the user gave it.

    Raises:
        DataError: a file of the run is invalid.
    """
    trained, run = ref.trained, ref.run
    base = trained.model.path if trained else adapter_base(ref.path) if ref.adapter else name
    sft = None
    if trained and (Path(base) / RUN_FILES[1]).is_file():
        sft = load_stored(Path(base) / RUN_FILES[1], sections=SHOWN_SECTIONS)
        base = sft.model.path
    first = sft or trained
    if first and first.sft.scratch:
        base = ""
    state = ref.path / "run_state.json"
    metrics = read_metrics(run / "metrics.jsonl") if run else []
    summary = run / ("summary.json" if is_rl(ref) else "sft_summary.json") if run else None
    return Provenance(
        base=base if base in PACKAGED else hub_name(base) or Path(base).name,
        hub=hub_name(base),
        licence=_licence(base),
        step=validated(TypeAdapter(_State), read_object(state), state).step if state.is_file() else None,
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
    name = "/".join(cached.split("--")[1:]) if cached else path
    is_name = cached or (path not in PACKAGED and not Path(path).exists())
    return name if is_name and _HUB_NAME.fullmatch(name) else None


def read_evaluation(folder: Path) -> Results:
    """Read the results of an evaluation; raises DataError if they are missing or invalid."""
    if not (folder / RESULTS).is_file():
        raise DataError(f"evaluation {folder}: expected a {RESULTS} of `geovlm-ray evaluate`, found none")
    where = f"{folder / RESULTS}: expected results of `geovlm-ray evaluate`, found an invalid entry"
    return validated(TypeAdapter(Results), read_results(folder), where)


def own_evaluation(ref: ModelRef, step: int | None) -> Path | None:
    """The folder of the evaluation of a checkpoint during its training run, if there is one."""
    folder = ref.run / "evaluations" / f"step-{step:06d}" if ref.run and step is not None else None
    return folder if folder and (folder / RESULTS).is_file() else None


def _tasks(trained: Config | None, metrics: list[StepMetrics]) -> tuple[str, ...]:
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
                check_plain(shard)
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
