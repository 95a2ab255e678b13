"""Studies: valid run configurations, pairing, verdicts, the answer, result pages and their publication."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.scene_tasks import BUILDERS
from geovlm_ray.data.scenes import demonstration, scene_example
from geovlm_ray.evaluation.studies.page import write_study
from geovlm_ray.evaluation.studies.processes import cpu_share, is_complete, run_commands
from geovlm_ray.evaluation.studies.publish import publish
from geovlm_ray.evaluation.studies.results import ALL, Difference, RunResult, difference
from geovlm_ray.evaluation.studies.runs import Command, StudyPlan, run_name
from geovlm_ray.evaluation.studies.study import Study, load_study, study_names
from geovlm_ray.evaluation.studies.verdicts import Runs, VariantDifference, answer, baseline_comparisons
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.tasks import TASKS, extensions

NOISY_LABELS = "geovlm_ray.evaluation.studies.noisy_labels"
RECORDS = 4


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the plugin of a study registers is removed after the test."""
    registries: tuple[dict[str, Any], ...] = (TASKS, BUILDERS)
    before = [dict(registry) for registry in registries]
    monkeypatch.setattr(extensions, "_plugins", list(extensions._plugins))
    yield
    sys.modules.pop(NOISY_LABELS, None)
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def parsed(command: Command) -> argparse.Namespace:
    """Parsed arguments of a geovlm-ray command."""
    name, *arguments = command.arguments
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"geovlm_ray.commands.{name}").add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("recipe", ["demo", "geovlm-r1"])
@pytest.mark.parametrize("name", study_names())
def test_every_run_of_a_study_has_a_valid_configuration(tmp_path: Path, name: str, recipe: str, short: bool) -> None:
    study = load_study(name)
    plan = StudyPlan((study.shortened() if short else study).with_seeds(2), tmp_path, recipe, ("checkpoint.keep=3",))
    assert set(study.tasks) <= set(TASKS)
    names = set()
    for kind, seed in plan.runs:
        variant = plan.study.variants[kind]
        args = parsed(plan.run_command(kind, seed))
        config = load_config(args.recipe, args.overrides)
        assert (config.run.seed, config.checkpoint.keep) == (seed, 3)
        names.add(config.run.name)
        if variant.train:
            assert config.evaluation.every == config.run.steps == (4 if short else 60)
        else:
            assert args.limit == config.evaluation.records
        if variant.sft is not None:
            assert config.model.path == str(plan.model(kind, seed))
            args = parsed(plan.sft_command(kind, seed))
            tuned = load_config(args.recipe, args.overrides)
            assert (tuned.sft.readers, tuned.sft.steps < 10) == (0, short)
            assert tuned.model.path == plan.start
    assert names == {run_name(kind, seed) for kind, seed in plan.runs}
    assert len(names) == 2 * len(study.variants)


def test_variants_differ_only_in_the_studied_setting(tmp_path: Path) -> None:
    plan = StudyPlan(load_study("kl"), tmp_path, "demo")
    args = [parsed(plan.run_command(name, 0)) for name in plan.study.variants]
    configs = [load_config(a.recipe, a.overrides) for a in args]
    unnamed = [c.model_copy(update={"run": c.run.model_copy(update={"name": "x"})}) for c in configs]
    assert len({c.learner.kl_beta for c in unnamed}) == len(unnamed)
    without_kl = [c.model_copy(update={"learner": c.learner.model_copy(update={"kl_beta": 0})}) for c in unnamed]
    assert len({c.model_dump_json() for c in without_kl}) == 1


def test_overrides_apply_to_runs_and_evaluations_but_not_to_the_fine_tuned_model(tmp_path: Path) -> None:
    plan = StudyPlan(load_study("sft-or-rl"), tmp_path, "demo", ("model.path=tiny", "evaluation.records=7"))
    args = parsed(plan.run_command("more SFT", 1))
    assert (args.model, args.limit) == (str(plan.model("more SFT", 1)), 7)
    args = parsed(plan.sft_command("more SFT", 1))
    assert load_config(args.recipe, args.overrides).model.path == "tiny"
    args = parsed(plan.run_command("RL", 1))
    assert load_config(args.recipe, args.overrides).evaluation.records == 7


def test_unknown_study_suggests_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"study 'formt': expected one of .*did you mean 'format'"):
        load_study("formt")


def test_seeds_are_counted_from_0_and_their_number_is_positive(tmp_path: Path) -> None:
    study = load_study("kl")
    assert len(StudyPlan(study, tmp_path, "demo").runs) == study.seeds * len(study.variants)
    assert {seed for _, seed in StudyPlan(study.with_seeds(3), tmp_path, "demo").runs} == {0, 1, 2}
    assert {seed for _, seed in StudyPlan(study.shortened(), tmp_path, "demo").runs} == {0}
    with pytest.raises(ConfigError, match="--seeds: expected at least 1, found 0"):
        study.with_seeds(0)


def score(value: float, records: range = range(RECORDS)) -> dict[tuple[str, str], float]:
    """Scores of records that differ from each other, with the mean ``value`` over the first `RECORDS`."""
    return {(f"r{k}", "?"): value + 0.01 * (k - (RECORDS - 1) / 2) for k in records}


def result(value: float, **changed: Any) -> RunResult:
    values: dict[str, Any] = {
        "sampled": {task: np.full(8, value) for task in (ALL, *TASKS)},
        "before": {task: score(0.5) for task in TASKS},
        "greedy": {task: score(value) for task in TASKS},
        "seconds": 10.0,
        "cpu_seconds": 9.0,
        "format": 1.0,
        "length": 20.0,
    }
    return RunResult(**values | changed)


def runs(*values: float) -> dict[int, RunResult]:
    return {seed: result(value) for seed, value in enumerate(values)}


def test_differences_are_paired_by_seed() -> None:
    change = difference(runs(0.1, 0.5, 0.9), runs(0.05, 0.45, 0.85), "sampled", ALL)
    assert (change.mean, change.low, change.high) == pytest.approx((5, 5, 5))


@pytest.mark.parametrize("measure", ["greedy", "sampled"])
def test_difference_uses_the_seeds_that_both_variants_have(measure: Any) -> None:
    one, other = runs(0.1, 0.5, 0.9, 0.3), runs(0.05, 0.45, 0.2, 0.9)
    del one[2], other[3]
    change = difference(one, other, measure, ALL)
    assert change.seeds == (0, 1)
    assert (change.mean, change.low) == pytest.approx((5, 5))
    assert difference(one, {}, measure, ALL).seeds == ()
    lone = difference(one, {1: other[1]}, measure, ALL)
    assert lone.mean == pytest.approx(5)
    assert math.isnan(lone.low)


def test_difference_uses_the_held_out_records_that_both_runs_answered() -> None:
    # Seed 1 of one variant was evaluated on more records, whose scores are high.
    more = {task: score(0.6) | dict.fromkeys(score(0, range(RECORDS, 40)), 1.0) for task in TASKS}
    one, other = runs(0.7, 0.7), {0: result(0.6), 1: result(0.6, greedy=more)}
    change = difference(one, other, "greedy", ALL)
    assert (change.mean, change.low, change.high) == pytest.approx((10, 10, 10))


def test_interval_is_that_of_a_paired_t_test() -> None:
    # Differences 10, 4, 7: standard error 3 / sqrt(3), t(0.975, 2) = 4.3027.
    change = difference(runs(0.7, 0.5, 0.6), runs(0.6, 0.46, 0.53), "greedy", "vqa")
    margin = 4.3027 * 3 / math.sqrt(3)
    assert (change.mean, change.low, change.high) == pytest.approx((7, 7 - margin, 7 + margin), abs=1e-3)


def test_sampled_score_averages_the_last_quarter() -> None:
    run = result(0, sampled={ALL: np.array([0, 0, 0, 0, 0, 0, 1.0, 3.0])})
    assert run.value("sampled", ALL) == 2.0


@pytest.mark.parametrize(
    ("low", "high", "equivalence", "expected"),
    [
        (0.5, 3.5, 2, "supports"),
        (-3.5, -0.5, 2, "contradicts"),
        (-1.5, 1.9, 2, "no difference beyond 2 points"),
        (-1.5, 2.1, 2, "undecided after 8 seeds"),
        (-1.5, 2.1, 2.5, "no difference beyond 2.5 points"),
        (0.2, 1.4, 2, "supports, but the difference is below 2 points"),
        (-1.4, -0.2, 2, "contradicts, but the difference is below 2 points"),
        (-9.0, 9.0, 2, "undecided after 8 seeds"),
        (math.nan, math.nan, 2, "undecided after 8 seeds"),
    ],
)
def test_verdict_follows_the_interval_and_the_equivalence_bounds(
    low: float, high: float, equivalence: float, expected: str
) -> None:
    change = Difference(tuple(range(8)), (low + high) / 2, low, high)
    assert VariantDifference("a", "b", ALL, "greedy", change, equivalence).verdict() == expected


def compared(better: dict[int, RunResult], worse: dict[int, RunResult]) -> tuple[Study, Runs]:
    """The study of KL coefficients with results of the two variants of its expectation."""
    return load_study("kl"), {"beta=0": better, "beta=0.01": {}, "beta=0.1": worse}


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        (
            (0.7, 0.71, 0.73),
            (0.6, 0.61, 0.62),
            "Train without a KL penalty: `beta=0` scored 10.3 points higher than `beta=0.1` on held-out records (95% "
            "interval +8.9 to +11.8, 3 seeds).",
        ),
        (
            (0.6, 0.61, 0.62),
            (0.7, 0.71, 0.73),
            "Keep a KL penalty: `beta=0` scored 10.3 points lower than `beta=0.1` on held-out records (95% interval "
            "-11.8 to -8.9, 3 seeds).",
        ),
        (
            (0.601, 0.611, 0.619),
            (0.6, 0.61, 0.62),
            "It makes no difference beyond 2 points whether the policy is trained with a KL penalty of 0.1 or without: "
            "`beta=0` scored 0.0 points higher than `beta=0.1` on held-out records (95% interval -0.3 to +0.3, 3 "
            "seeds).",
        ),
        (
            (0.605, 0.615, 0.626),
            (0.6, 0.61, 0.62),
            "Train without a KL penalty: `beta=0` scored 0.5 points higher than `beta=0.1` on held-out records (95% "
            "interval +0.4 to +0.7, 3 seeds), a difference below 2 points.",
        ),
        (
            (0.7, 0.5, 0.6),
            (0.6, 0.62, 0.59),
            "It is undecided after 3 seeds whether the policy is trained with a KL penalty of 0.1 or without: `beta=0` "
            "scored 0.3 points lower than `beta=0.1` on held-out records (95% interval -27.8 to +27.1, 3 seeds).",
        ),
        (
            (0.7,),
            (0.6,),
            "It is undecided after 1 seed whether the policy is trained with a KL penalty of 0.1 or without: `beta=0` "
            "scored 10.0 points higher than `beta=0.1` on held-out records (1 seed).",
        ),
        (
            (0.7,),
            (),
            "There is no answer yet whether the policy is trained with a KL penalty of 0.1 or without: the runs of "
            "this comparison are missing.",
        ),
    ],
)
def test_answer_states_the_verdict_in_words_with_the_difference(
    better: tuple[float, ...], worse: tuple[float, ...], expected: str
) -> None:
    assert answer(*compared(runs(*better), runs(*worse))) == expected


def test_baseline_comparisons_cover_all_tasks_and_each_task() -> None:
    study, results = compared(runs(0.7, 0.71, 0.73), runs(0.6, 0.61, 0.62))
    rows = baseline_comparisons(study, results)
    assert {(row.one, row.other) for row in rows} == {("beta=0.1", "beta=0")}
    assert {row.task for row in rows} == {ALL, *study.tasks}
    assert {row.verdict("higher", "lower") for row in rows} == {"lower"}


@pytest.fixture
def plan(tmp_path: Path) -> StudyPlan:
    """The study of KL coefficients with three seeds."""
    out = tmp_path / "kl"
    out.mkdir()
    return StudyPlan(load_study("kl").with_seeds(3), out, "demo")


def test_page_begins_with_the_answer_and_lists_missing_runs_with_their_errors(plan: StudyPlan) -> None:
    study, results = compared(runs(0.7, 0.71, 0.73), runs(0.6, 0.61, 0.62))
    page = write_study(plan, results, {"beta-0.01-0": "no disk"}, "geovlm-ray study kl").read_text()
    lines = [line for line in page.splitlines() if line]
    assert lines[:2] == [f"# {study.title}", f"**{answer(study, results)}**"]
    assert "- greedy answers after training: +10.3 points (95% interval +8.9 to +11.8, 3 seeds): **supports**" in lines
    assert "| beta=0.1 | all tasks | greedy answers after training | -10.3 | -11.8 to -8.9 | 3 | lower |" in lines
    assert "`beta=0.01`, seed 0; `beta=0.01`, seed 1" in page
    assert "- `beta-0.01-0`: no disk" in lines
    assert "start from the model `" in page
    assert (plan.out / "curves.png").is_file()
    assert (plan.out / "scores.png").is_file()


def test_results_have_seeds_intervals_and_no_nan(plan: StudyPlan) -> None:
    tuned = {seed: result(0.6, sampled={}, before={}, format=math.nan, length=math.nan) for seed in range(2)}
    study, results = compared(runs(0.7, 0.71, 0.73), tuned)
    write_study(plan, results, {}, "geovlm-ray study kl")
    written = json.loads((plan.out / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["answer"] == answer(study, results)
    assert (written["equivalence"], written["seeds"]) == (2, [0, 1, 2])
    (found,) = written["expectation"]
    assert (found["seeds"], found["verdict"]) == ([0, 1], "supports")
    assert found["mean"] == pytest.approx(10.5)
    assert found["low"] < 10.5 < found["high"]
    assert {row["verdict"] for row in written["differences"]} == {"lower"}
    assert written["runs"]["beta=0.1"]["0"]["greedy"][ALL] == {"before": None, "after": pytest.approx(0.6)}


def test_published_study_replaces_its_item_in_the_list(plan: StudyPlan, tmp_path: Path) -> None:
    study, results = compared(runs(0.7, 0.71, 0.73), runs(0.6, 0.61, 0.62))
    folder = tmp_path / "docs"
    other = "- **[Think](think/README.md).** Undecided."
    for items in (["- **[Old title](kl/README.md).** Old answer.", other], [other]):
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text("\n".join(["# Studies", "", "Introduction.", "", *items]) + "\n")
        page = write_study(plan, results, {}, "geovlm-ray study kl")
        publish(plan.out, folder)
        lines = (folder / "README.md").read_text().splitlines()
        assert lines[:4] == ["# Studies", "", "Introduction.", ""]
        assert sorted(lines[4:]) == sorted([other, f"- **[{study.title}](kl/README.md).** {answer(study, results)}"])
        assert (folder / "kl" / "README.md").read_text() == page.read_text()
        assert {path.name for path in (folder / "kl").iterdir()} == {
            *("README.md", "results.json", "curves.png", "scores.png")
        }


def test_study_command_rejects_a_number_of_seeds_below_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "kl", "--seeds", "0"]) != 0
    assert "--seeds: expected at least 1, found 0" in "".join(capsys.readouterr())


def test_completed_command_is_skipped_and_a_changed_one_is_run(tmp_path: Path) -> None:
    def run(each: str, digest: str = "a") -> tuple[dict[str, str], int]:
        image = tmp_path / "scenes.png"
        command = Command("scenes", ("data", "scenes", "--out", str(image), "--each", each), image, digest)
        failed = run_commands([command], tmp_path, 1, lambda done, text: None)
        return failed, image.stat().st_mtime_ns

    assert math.isnan(cpu_share(tmp_path, "scenes"))
    failed, first = run("1")
    assert not failed
    assert 0 < cpu_share(tmp_path, "scenes") < 10
    assert run("1") == ({}, first)
    failed, unchanged = run("1", "b")
    assert unchanged == first
    assert failed["scenes"].startswith(f"{tmp_path} was made with other settings in the recipe, or other data")
    assert run("2")[1] > first
    failed, _ = run("0")
    assert "expected --seed of 0 or more and --each of 1 or more" in failed["scenes"]


def test_results_of_another_recipe_or_reward_are_not_used(tmp_path: Path) -> None:
    recipe, reward = tmp_path / "my.yaml", tmp_path / "mine.py"
    reward.write_text("def score(response, target): return 1.0")
    recipe.write_text(f"learner: {{lr: 1.0e-4}}\nreward: {{function: '{reward}:score'}}\nprompt: {{image_size: 112}}\n")

    def runs_of_seed_0() -> list[Command]:
        plan = StudyPlan(load_study("sft-or-rl-noisy").with_seeds(1), tmp_path / "out", str(recipe))
        return [plan.run_command("RL", 0), plan.sft_command("SFT on noisy labels", 0)]

    first = runs_of_seed_0()
    for command in first:
        command.result.parent.mkdir(parents=True)
        command.result.touch()
        usage = {"command": command.arguments, "digest": command.digest}
        (tmp_path / "out" / "logs" / f"{command.name}.json").write_text(json.dumps(usage))

    def complete() -> list[bool]:
        return [is_complete(command, tmp_path / "out" / "logs") for command in runs_of_seed_0()]

    assert complete() == [True, True]
    reward.write_text("def score(response, target): return 0.0")
    assert complete() == [False, False]
    reward.write_text("def score(response, target): return 1.0")
    assert complete() == [True, True]
    recipe.write_text(recipe.read_text().replace("112", "56"))
    assert [command.arguments for command in runs_of_seed_0()] == [command.arguments for command in first]
    assert complete() == [False, False]


def noisy_pairs(task: str, n: int) -> list[tuple[Any, Any]]:
    """True and noisy records of a task with the same random numbers."""
    build, module = BUILDERS[task], import_module(NOISY_LABELS)
    return [(build(np.random.default_rng(k)), module.noisy(build)(np.random.default_rng(k))) for k in range(n)]


@pytest.mark.parametrize("task", ["multilabel_classification", "vqa", "object_detection", "visual_grounding"])
def test_half_of_the_noisy_labels_come_from_elsewhere(task: str) -> None:
    pairs = noisy_pairs(task, 300)
    for true, noisy in pairs:
        assert (noisy.scenes, noisy.question, noisy.labels) == (true.scenes, true.question, true.labels)
    wrong = np.mean([true.target != noisy.target for true, noisy in pairs])
    assert (0.42 if "_" in task else 0.25) < wrong < 0.58


def test_noisy_boxes_are_shifted_inside_the_image() -> None:
    for true, noisy in noisy_pairs("object_detection", 300):
        for box, moved in zip(target_boxes(true.target), target_boxes(noisy.target), strict=True):
            shift = np.subtract(moved.coords, box.coords)
            assert shift[:2].tolist() == shift[2:].tolist()
            assert np.abs(shift).max() <= 20
            assert 0 <= min(moved.coords) <= max(moved.coords) <= 99


def test_noisy_tasks_leave_the_true_tasks_unchanged() -> None:
    before = list(BUILDERS.items())
    stage = "data.stages=[{steps: 1, tasks: [noisy_vqa, noisy_visual_grounding]}]"
    load_config("demo", [f"plugins=[{NOISY_LABELS}]", stage])
    assert list(BUILDERS.items())[: len(before)] == before
    examples = [scene_example(task, 0, k) for task in ("noisy_vqa", "noisy_visual_grounding") for k in range(20)]
    scores = score_batch([demonstration(example) for example in examples], examples, RewardConfig())
    assert {score.total for score in scores} == {2.0}
