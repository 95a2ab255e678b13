"""Self-contained HTML report of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_object, read_objects, read_text, write_atomically
from geovlm_ray.report.curves import StepMetrics, curve
from geovlm_ray.report.gallery import shown_steps
from geovlm_ray.report.held_out import COLUMNS, constant_answers, held_out_results
from geovlm_ray.report.page import render


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run directory, and return its path.

    Raises:
        RunError: the folder is not a run directory.
        DataError: a file of the run is invalid, or an image of a shown completion does not exist.
    """
    config_file, metrics_file, summary_file = (folder / n for n in ("config.yaml", "metrics.jsonl", "summary.json"))
    if not config_file.is_file():
        raise RunError(f"{folder}: expected a run directory with a config.yaml, found none")
    config = load_config(str(config_file))
    rows = read_objects(metrics_file) if metrics_file.is_file() else []
    summary = read_object(summary_file) if summary_file.is_file() else {}
    page = render(
        "report.html",
        config=config,
        config_text=read_text(config_file),
        facts=_facts(config, rows, summary),
        held_out=held_out_results(summary),
        held_out_columns=COLUMNS,
        answers=constant_answers(summary),
        charts=_charts(rows) + _benchmarks(folder / "evaluations"),
        steps=shown_steps(folder / "rollouts"),
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _facts(config: Config, rows: Sequence[StepMetrics], summary: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "steps": f"{int(rows[-1]['step']) if rows else 0} of {config.run.steps}",
        "prompts × completions per step": f"{config.rollout.prompts_per_step} × {config.rollout.group_size}",
        "maximum staleness": str(config.loop.max_staleness),
        "rewards": f"{config.reward.preset} forms, combined by {config.reward.combine}",
    }
    if summary:
        facts["duration"] = f"{summary['seconds']:.0f} s"
        facts["maximum log-prob difference between engine and learner"] = f"{summary['parity_max_abs']:.2g}"
    return facts


def _benchmarks(evaluations: Path) -> list[Markup]:
    """A chart of the evaluations during training; empty without any."""
    rows = []
    for file in sorted(evaluations.glob("step-*/results.json")):
        scores = {name: result["score"]["value"] for name, result in read_object(file)["benchmarks"].items()}
        rows.append({"step": int(file.parent.name.removeprefix("step-")), **scores})
    names = {name: name for row in rows for name in row if name != "step"}
    return [curve(rows, names, "Benchmarks during training", "mean score")] if rows else []


def _charts(rows: Sequence[StepMetrics]) -> list[Markup]:
    tasks = {name: found[1] for name in (rows[-1] if rows else {}) if (found := re.fullmatch("task/(.*)/reward", name))}
    phases = {f"seconds/{part}": part for part in ("rollout", "resample", "learner", "sync")}
    charts: tuple[tuple[dict[str, str], str, str], ...] = (
        ({"reward/mean": "reward"}, "Sampled reward", "mean reward"),
        ({"reward/format": "format", "reward/accuracy": "accuracy"}, "Format and accuracy", "mean in [0, 1]"),
        (tasks, "Sampled reward by task", "mean reward"),
        ({"completion/length_mean": "length"}, "Completion length", "tokens"),
        (phases, "Step time by phase", "seconds"),
        ({"loss/kl_to_sampler": "KL"}, "KL from the rollout policy", "nats per token"),
        ({"grad_norm": "norm"}, "Gradient norm before clipping", "norm"),
        ({"parity/max_abs": "difference"}, "Engine-learner parity after weight sync", "maximum log-prob difference"),
    )
    return [curve(rows, *each) for each in charts]
