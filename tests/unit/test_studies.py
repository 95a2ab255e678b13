"""Studies: valid run configurations, verdicts and result pages."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.evaluation.studies.page import verdict, write_study
from geovlm_ray.evaluation.studies.results import ALL, RunResult, difference
from geovlm_ray.evaluation.studies.runs import StudyPlan, run_name
from geovlm_ray.evaluation.studies.study import load_study, study_names
from geovlm_ray.tasks import TASKS


def parsed(command: list[str]) -> argparse.Namespace:
    """Parsed arguments of a geovlm-ray command."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"geovlm_ray.commands.{command[0]}").add_arguments(parser)
    return parser.parse_args(command[1:])


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("recipe", ["demo", "geovlm-r1"])
@pytest.mark.parametrize("name", study_names())
def test_every_run_of_a_study_has_a_valid_configuration(tmp_path: Path, name: str, recipe: str, short: bool) -> None:
    study = load_study(name)
    plan = StudyPlan(study.shortened() if short else study, tmp_path, recipe, ("checkpoint.keep=3",))
    assert set(study.tasks) <= set(TASKS)
    names = set()
    for kind, variant in plan.study.variants.items():
        for seed in plan.study.seeds:
            if variant.sft is not None:
                args = parsed(plan.sft_command(kind, variant, seed))
                load_config(args.recipe, args.overrides)
            if variant.train:
                args = parsed(plan.train_command(kind, variant, seed))
                config = load_config(args.recipe, args.overrides)
                assert (config.run.seed, config.checkpoint.keep) == (seed, 3)
                assert config.evaluation.every == config.run.steps
                names.add(config.run.name)
            else:
                parsed(plan.evaluate_command(kind, seed))
                names.add(run_name(kind, seed))
    assert len(names) == len(plan.study.variants) * len(plan.study.seeds)


def test_variants_differ_only_in_the_studied_setting(tmp_path: Path) -> None:
    plan = StudyPlan(load_study("kl"), tmp_path, "demo")
    configs = [load_config("demo", plan.settings(name, v, 0)) for name, v in plan.study.variants.items()]
    unnamed = [c.model_copy(update={"run": c.run.model_copy(update={"name": "x"})}) for c in configs]
    assert len({c.learner.kl_beta for c in unnamed}) == len(unnamed)
    without_kl = [c.model_copy(update={"learner": c.learner.model_copy(update={"kl_beta": 0})}) for c in unnamed]
    assert len({c.model_dump_json() for c in without_kl}) == 1


def test_unknown_study_suggests_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"study 'formt': expected one of .*did you mean 'format'"):
        load_study("formt")


def result(after: float, sampled: float) -> RunResult:
    return RunResult(
        sampled={task: np.full(8, sampled) for task in (ALL, *TASKS)},
        greedy=dict.fromkeys((ALL, *TASKS), (0.5, after)),
        seconds=10.0,
        format=1.0,
        length=20.0,
    )


def runs(*values: float) -> dict[int, RunResult]:
    return {seed: result(value, value) for seed, value in enumerate(values)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0.7, 0.71, 0.72), (0.6, 0.61, 0.62), "supports"),
        ((0.6, 0.61, 0.62), (0.7, 0.71, 0.72), "contradicts"),
        ((0.7, 0.5, 0.6), (0.6, 0.62, 0.58), "neither supports nor contradicts"),
        ((0.7,), (0.1,), "neither supports nor contradicts"),
    ],
)
def test_verdict_follows_the_confidence_interval_over_seeds(
    one: tuple[float, ...], other: tuple[float, ...], expected: str
) -> None:
    assert verdict(difference(runs(*one), runs(*other), "greedy", ALL)) == expected


def test_differences_are_paired_by_seed() -> None:
    change = difference(runs(0.1, 0.5, 0.9), runs(0.05, 0.45, 0.85), "sampled", ALL)
    assert change.mean == pytest.approx(0.05)
    assert change.low == pytest.approx(0.05)


def test_sampled_score_averages_the_last_quarter() -> None:
    run = RunResult({ALL: np.array([0, 0, 0, 0, 0, 0, 1.0, 3.0])}, {ALL: (0, 0)}, 1, 1, 1)
    assert run.value("sampled", ALL) == 2.0


def test_page_lists_missing_runs_and_their_errors(tmp_path: Path) -> None:
    plan = StudyPlan(load_study("format"), tmp_path, "demo")
    better = {0: result(0.7, 0.7), 1: result(0.71, 0.71), 2: result(0.72, 0.72)}
    results = {"gated": better, "sum": runs(0.6, 0.61, 0.62), "weighted": {}}
    page = write_study(plan, results, {"weighted-0": "no disk"}, "geovlm-ray study format").read_text()
    assert "scored +10.0 points relative to `sum` (95% interval over 3 seeds: +10.0 to +10.0): this supports" in page
    assert "`weighted`, seed 0; `weighted`, seed 1" in page
    assert "- `weighted-0`: no disk" in page
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "scores.png").is_file()
