"""Self-contained HTML report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_object, read_objects, read_text, write_atomically
from geovlm_ray.report.conclusions import NOTE, conclusions, progress
from geovlm_ray.report.curves import StepMetrics
from geovlm_ray.report.gallery import shown_steps
from geovlm_ray.report.held_out import (
    ANSWER_COLUMNS,
    COLUMNS,
    held_out_results,
    incomparable,
    max_reward,
    task_answers,
)
from geovlm_ray.report.held_out_cases import first_of_each_task, read_pairs, shown_case, worst
from geovlm_ray.report.page import render
from geovlm_ray.report.run_charts import run_charts
from geovlm_ray.report.run_warnings import read_warnings


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run directory, and return its path.

    Raises:
        RunError: the folder is not a run directory.
        DataError: a file of the run is invalid.
    """
    config_file, metrics_file, summary_file = (folder / n for n in ("config.yaml", "metrics.jsonl", "summary.json"))
    if not config_file.is_file():
        raise RunError(f"{folder}: expected a run directory with a config.yaml, found none")
    config = load_config(str(config_file))
    rows = read_objects(metrics_file) if metrics_file.is_file() else []
    summary = read_object(summary_file) if summary_file.is_file() else {}
    results, answers, warnings = held_out_results(summary), task_answers(summary), read_warnings(folder)
    maximum, think = max_reward(config.reward), config.reward.think
    pairs, reason = read_pairs(folder)
    reason = incomparable(summary) or reason
    constants = {result.task: result.constant for result in results}
    page = render(
        "report.html",
        config=config,
        config_text=read_text(config_file),
        maximum=maximum,
        conclusions=conclusions(results, answers, len(warnings), maximum)
        if results
        else progress(rows, len(warnings), maximum, reason),
        conclusions_note=NOTE if results else "",
        warnings=warnings,
        examples=[shown_case(pair, think) for pair in first_of_each_task(pairs)],
        worst=[shown_case(pair, think) for pair in worst(pairs, maximum)],
        charts=run_charts(rows, config, constants, folder / "evaluations"),
        facts=_facts(config, rows, summary),
        changes=[change.text for change in ContentRecord(folder / CONTENTS_FILE).changes],
        held_out=[result.cells for result in results],
        held_out_columns=COLUMNS,
        answers=[each.cells for each in answers],
        answer_columns=ANSWER_COLUMNS,
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
