"""Comparison of runs and evaluations: matching of records, pages, terminal output and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.core.errors import ConfigError, DataError, RunError, UserError
from geovlm_ray.core.files import read_object
from geovlm_ray.data.scenes import demonstration, scene_example
from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.page import comparison_page
from geovlm_ray.evaluation.comparison.paired import holm
from geovlm_ray.evaluation.comparison.sources import read_sources
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.results import RESULTS
from geovlm_ray.report.held_out import held_out_results
from tests.unit.comparison import (
    TASKS,
    Model,
    compare_folders,
    evaluate,
    make_run,
    run_command,
    terminal_output,
    write_evaluation,
)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    return make_run(folder, Model(0.3, "weak"), "learner.lr=0.0001", evaluated=(2, 10))


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    return make_run(folder, Model(0.9, "strong"), "learner.lr=0.0002", "data.seed=7", evaluated=(2,))


@pytest.fixture(scope="module")
def both(weak: Path, strong: Path) -> Comparison:
    return compare_folders(weak, strong)


def test_better_run_is_significantly_higher(both: Comparison) -> None:
    first = both.held_out[0]
    assert (first.task, first.mode, first.first, first.other, first.test.n) == ("all tasks", "sampled", "A", "B", 40)
    assert first.test.difference.low > 0
    assert first.p_holm < 0.05
    assert "Held-out reward, all tasks, sampled: B " in terminal_output(both)
    assert "B is significantly higher" in terminal_output(both)


def test_page_shows_the_rewards_of_each_run_before_and_after_training(weak: Path, both: Comparison) -> None:
    page = comparison_page(both)
    assert page.count("before and after training</summary>") == 2
    rows = held_out_results(read_object(weak / "summary.json"))
    assert all(f"<td>{cell}</td>" in page for row in rows for cell in row.cells)


def test_every_task_and_decoding_mode_is_a_row(weak: Path, strong: Path, both: Comparison) -> None:
    assert [(row.task, row.mode) for row in both.held_out] == [
        (task, mode) for task in ("all tasks", *TASKS) for mode in ("sampled", "greedy")
    ]
    assert [row.p_holm for row in both.held_out] == holm([row.test.p for row in both.held_out])
    summaries = [read_object(run / "summary.json")["heldout"] for run in (weak, strong)]
    for row in both.held_out:
        expected = [
            (s[row.mode] if row.task == "all tasks" else s["per_task"][row.task][row.mode])["after"]["mean"]
            for s in summaries
        ]
        assert [row.test.first, row.test.other] == pytest.approx(expected)


def test_run_and_its_copy_have_no_difference(weak: Path, tmp_path: Path) -> None:
    found = compare_folders(weak, shutil.copytree(weak, tmp_path / "copy"))
    tests = [row.test for row in found.held_out] + [row.test for row in found.benchmarks]
    assert len(tests) == 8
    assert all((test.difference.value, test.p) == (0, 1) for test in tests)
    assert not any(row.higher or row.lower for row in found.benchmarks)
    assert {row.verdict for row in (*found.held_out, *found.benchmarks)} == {"no difference"}
    assert not found.settings
    page = comparison_page(found)
    assert "B against A: no difference on 2." in page
    assert "No setting differs" in page
    assert "All 12 records score the same" in page


def test_only_differing_settings_are_shown(both: Comparison) -> None:
    assert {s.key: s.values for s in both.settings} == {
        "learner.lr": {"A": 0.0001, "B": 0.0002},
        "data.seed": {"A": 0, "B": 7},
    }


def test_all_runs_share_one_chart_per_metric(both: Comparison) -> None:
    metrics = ["reward/mean", "reward/format", "reward/accuracy", "completion/length_mean"]
    assert [curve.metric for curve in both.curves] == [*metrics, *(f"task/{task}/reward" for task in TASKS)]
    assert all([step for step, _ in points] == [1, 2, 3] for c in both.curves for points in c.points.values())
    page = comparison_page(both)
    assert page.count('<svg xmlns:xlink="http://www.w3.org') == 6
    for colour in ("#2563eb", "#db2777"):
        assert page.count(f"stroke: {colour}") >= 6


def test_steps_without_a_value_are_omitted_from_curves(weak: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(weak, tmp_path / "copy")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "reward/mean": NaN}\n{"step": 5}\n{"step": 6, "reward/mean": 1.5}\n')
    points = compare_folders(weak, copy).curves[0].points
    assert [step for step, _ in points["B"]] == [1, 2, 3, 6]


def test_duplicate_names_are_prefixed_with_the_parent_folder(weak: Path, strong: Path, both: Comparison) -> None:
    names = [source.name for source in both.sources]
    assert names == [f"{weak.parent.name}/run", f"{strong.parent.name}/run"]
    assert all(name in terminal_output(both) and name in comparison_page(both) for name in names)


def test_newest_evaluation_of_a_run_is_used(weak: Path, both: Comparison) -> None:
    evaluation = both.sources[0].evaluation
    assert evaluation is not None
    assert evaluation.folder == weak / "evaluations" / "step-000010"
    assert "newest evaluation: step-000010 on 2 benchmarks" in terminal_output(both)


def test_unfinished_evaluation_is_ignored(weak: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(weak, tmp_path / "copy")
    (copy / "evaluations" / "step-000020" / "predictions").mkdir(parents=True)
    found = compare_folders(weak, copy)
    assert found.sources[1].evaluation is not None
    assert found.sources[1].evaluation.folder.name == "step-000010"


def test_evaluations_are_ordered_by_numeric_step(weak: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(weak, tmp_path / "copy")
    for name in ("step-999999", "step-1000000"):
        shutil.copytree(copy / "evaluations" / "step-000010", copy / "evaluations" / name)
    evaluation = read_sources([weak, copy])[1].evaluation
    assert evaluation is not None
    assert evaluation.folder.name == "step-1000000"


def test_scores_and_paper_metrics_equal_the_results(weak: Path, strong: Path, both: Comparison) -> None:
    files = [weak / "evaluations" / "step-000010" / RESULTS, strong / "evaluations" / "step-000002" / RESULTS]
    written = [read_object(file)["benchmarks"] for file in files]
    for row in both.benchmarks:
        expected = [results[row.benchmark]["score"]["value"] for results in written]
        assert [row.test.first, row.test.other] == pytest.approx(expected)
        assert row.test.n == 12
    assert {(r.benchmark, r.metric): r.values for r in both.paper} == {
        (name, metric): {"A": written[0][name]["paper"][metric], "B": written[1][name]["paper"][metric]}
        for name in written[0]
        for metric in written[0][name]["paper"]
    }


def test_records_are_paired_by_id_and_unpaired_ones_counted(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", Model(0.5, "first"), scenes=4)
    other = make_run(tmp_path / "other", Model(0.5, "other"), scenes=4)
    evaluate(first, Model(0.5, "first"), 2, records=12)
    evaluate(other, Model(0.5, "other"), 2, records=20, tasks=("vqa",))
    file = other / "evaluations" / "step-000002" / "predictions" / "drawn-vqa.parquet"
    predictions = Predictions(file.parent, "drawn-vqa")
    rows = predictions.rows()
    file.unlink()
    predictions.add([{**row, "place": len(rows) - row["place"]} for row in rows])
    predictions.finish()
    assert [row["example_id"] for row in predictions.rows()] == [row["example_id"] for row in rows][::-1]
    found = compare_folders(first, other)
    (row,) = found.benchmarks
    ids = {row["example_id"]: row["score"] for row in rows}
    first_rows = Predictions(first / "evaluations" / "step-000002" / "predictions", "drawn-vqa").rows()
    common = [(r["score"], ids[r["example_id"]]) for r in first_rows if r["example_id"] in ids]
    assert row.test.n == len(common) == 12
    assert (row.test.first, row.test.other) == pytest.approx(tuple(np.mean(common, axis=0)))
    assert (row.only_first, row.only_other) == (0, 8)
    output = terminal_output(found)
    assert "drawn-vqa: means and tests exclude records that only one answered (8 only by B)" in output
    assert "Only A (first) was evaluated on drawn-object_detection" in output
    assert all(text in comparison_page(found) for text in ("8 only by B", "Only A (first) was evaluated on"))


def test_repeated_questions_of_a_record_are_paired_in_order(tmp_path: Path) -> None:
    scores = {"first": (0.0, 1.0, 0.25), "other": (0.5, 1.0, 0.25)}
    folders = [write_evaluation(tmp_path / name, [scene_example("vqa", 0, 0)] * 3, s) for name, s in scores.items()]
    found = compare_folders(*folders)
    (row,) = found.benchmarks
    assert row.test.n == 3
    assert [case.change for case in row.higher] == [0.5]
    assert row.lower == []
    assert {r.metric: r.values for r in found.paper} == {"m": {"A": 0.5, "B": 0.5}, "undefined": {}}


def test_examples_with_the_largest_differences_are_shown(tmp_path: Path) -> None:
    examples = [scene_example("object_detection", 0, i) for i in range(12)]
    changes = np.array([0.1, -0.2, 0.3, 0, 0.5, -0.6, 0.4, 0.2, 0, 0.05, -0.1, 0])
    first = write_evaluation(tmp_path / "a", examples, [0.6] * 12, demonstration(examples[0]))
    other = write_evaluation(tmp_path / "b", examples, list(0.6 + changes / 2), "<think>x</think><answer>[]</answer>")
    found = compare_folders(first, other)
    (row,) = found.benchmarks
    assert [case.first.example_id for case in row.higher] == [examples[i].id for i in (4, 6, 2, 7)]
    assert [case.first.example_id for case in row.lower] == [examples[i].id for i in (5, 1, 10)]
    page = comparison_page(found)
    assert page.count("data:image/jpeg;base64,") == 2 * 7
    assert page.count("&lt;answer&gt;[]&lt;/answer&gt;") == 7
    assert "B scores higher than A" in page
    assert "B scores lower than A" in page


def test_missing_image_is_replaced_by_an_error_message(tmp_path: Path) -> None:
    example = dataclasses.replace(scene_example("vqa", 0, 0), images=(str(tmp_path / "gone.png"),))
    folders = [write_evaluation(tmp_path / name, [example], [score]) for name, score in (("a", 0.0), ("b", 1.0))]
    assert f"{tmp_path / 'gone.png'}: expected a file, found none" in comparison_page(compare_folders(*folders))


def test_three_runs_are_tested_against_the_first(weak: Path, strong: Path, tmp_path: Path) -> None:
    third = make_run(tmp_path / "third", Model(0.6, "third"))
    found = compare_folders(weak, strong, third)
    assert {(row.first, row.other) for row in found.held_out} == {("A", "B"), ("A", "C")}
    assert len(found.held_out) == 12
    assert {(row.first, row.other) for row in found.benchmarks} == {("A", "B")}
    assert "C (third) has no evaluation." in terminal_output(found)
    assert all(set(curve.points) == {"A", "B", "C"} for curve in found.curves)


@pytest.mark.parametrize(
    ("overrides", "scenes", "message"),
    [
        ((), 20, "held-out records is object_detection 10, vqa 10, not object_detection 20, vqa 20"),
        (("reward.preset=paper",), 40, "reward.preset is paper, not robust"),
        (("data.source=parquet", "data.path=/data"), 40, "data.source is parquet, not scenes"),
    ],
)
def test_different_validation_sets_or_rewards_are_reported_not_compared(
    weak: Path, tmp_path: Path, overrides: tuple[str, ...], scenes: int, message: str
) -> None:
    other = make_run(tmp_path / "other", Model(0.5), *overrides, scenes=scenes)
    found = compare_folders(weak, other)
    assert not found.held_out
    assert message in terminal_output(found)
    assert message in comparison_page(found)


def test_held_out_records_with_other_references_are_reported_not_compared(weak: Path, tmp_path: Path) -> None:
    other = shutil.copytree(weak, tmp_path / "other")
    answers = other / "heldout_after.jsonl"
    answers.write_text(answers.read_text().replace('"target": "\\"yes\\""', '"target": "\\"no\\""'))
    found = compare_folders(weak, other)
    assert not found.held_out
    assert "because records or reward differ: digest of held-out records is " in terminal_output(found)


def test_reward_device_and_time_limit_do_not_prevent_comparison(weak: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", Model(0.5), "reward.sbert.device=cuda:1", "reward.time_limit_s=9")
    assert compare_folders(weak, other).held_out


def test_page_explains_missing_evaluations(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, Model(skill, name)) for name, skill in (("a", 0.3), ("b", 0.9))]
    (runs[1] / "summary.json").unlink()
    found = compare_folders(*runs)
    assert (found.held_out, found.benchmarks) == ([], [])
    page = comparison_page(found)
    assert "no two of these were evaluated on the same benchmark" in page
    assert "B (b) has no held-out rewards" in page
    assert "<img" not in page


def test_run_is_compared_with_an_evaluation_folder(weak: Path, strong: Path) -> None:
    found = compare_folders(weak, strong / "evaluations" / "step-000002")
    assert [row.benchmark for row in found.benchmarks] == ["drawn-vqa", "drawn-object_detection"]
    assert (found.curves, found.held_out, found.settings) == ([], [], [])


def test_command_writes_page_json_and_table(
    weak: Path, strong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(weak, strong, "--json", "numbers.json", "--draws", "500") == 0
    out = capsys.readouterr().out
    assert f"Page: {tmp_path / 'compare.html'}" in out
    page = (tmp_path / "compare.html").read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page
    numbers = json.loads((tmp_path / "numbers.json").read_text(), parse_constant=pytest.fail)
    assert numbers["bootstrap"] == {"draws": 500, "seed": 0}
    assert numbers["sources"]["B"]["path"] == str(strong)
    row = numbers["heldout"][0]
    assert f"{row['test']['difference']['value']:+.3f}" in out
    assert f"{row['test']['difference']['value']:+.3f}" in page
    assert len(numbers["curves"]["reward/mean"]["A"]) == 3
    assert {row["benchmark"] for row in numbers["benchmarks"]} == {"drawn-vqa", "drawn-object_detection"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{weak}"], ConfigError, "expected 2 to 10 runs or evaluations to compare, found 1"),
        (["{weak}", "{weak}/../run"], ConfigError, "found {weak} more than once"),
        (["{weak}"] * 11, ConfigError, "found 11"),
        (["{weak}", "/nowhere"], RunError, "/nowhere: expected a training run .* found no folder"),
        (["{weak}", "{weak}/evaluations"], RunError, "or an evaluation .* found neither"),
        (["{weak}", "{strong}", "--draws", "5"], ConfigError, "--draws: expected at least 100, found 5"),
        (["{weak}", "{strong}", "--out", "/nowhere/a.html"], DataError, "--out /nowhere/a.html: expected an existing"),
        (
            ["{weak}", "{strong}", "--json", "/nowhere/a.json"],
            DataError,
            "--json /nowhere/a.json: expected an existing",
        ),
    ],
)
def test_wrong_input_is_a_one_line_error(
    arguments: list[str], error: type[UserError], message: str, weak: Path, strong: Path
) -> None:
    given = [argument.format(weak=weak, strong=strong) for argument in arguments]
    with pytest.raises(error, match=message.format(weak=weak)) as raised:
        run_command(*given)
    assert "\n" not in str(raised.value)


def test_nothing_in_common_is_an_error_with_the_reason(weak: Path, tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "elsewhere", [scene_example("vqa", 0, 0)], [1.0])
    with pytest.raises(RunError, match=r"found none\. .*Only B \(elsewhere\) was evaluated on b\.$") as raised:
        compare_folders(weak, evaluation)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", '{"reward/mean": 1}\n', "metrics.jsonl, line 1: expected the number of a step"),
        ("metrics.jsonl", '{"step": "x"}\n', "metrics.jsonl, line 1: step: .*found 'x'"),
        ("summary.json", '{"heldout_rewards": {"before": {"sampled": {}, "greedy": {}}}}', "expected the key 'after'"),
        ("summary.json", '{"heldout_rewards": {"after": {"sampled": {"vqa": [1]}, "greedy": {}}}}', "as many sampled"),
        ("summary.json", '{"heldout_rewards": {"after": 3}}', r"summary.json: after: .*found 3"),
        ("evaluations/step-000010/results.json", "{}", r"results.json: model: Field required, found only"),
        ("evaluations/step-000010/predictions/drawn-vqa.parquet", "junk", "drawn-vqa.parquet: expected a Parquet file"),
    ],
)
def test_invalid_files_are_named(
    file: str, content: str, message: str, weak: Path, strong: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(weak, tmp_path / "copy")
    (copy / file).write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        compare_folders(copy, strong)
    assert "\n" not in str(raised.value)


def test_predictions_with_invalid_values_are_named(weak: Path, strong: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(weak, tmp_path / "copy")
    predictions = Predictions(copy / "evaluations" / "step-000010" / "predictions", "drawn-vqa")
    rows = predictions.rows()
    predictions.file.unlink()
    predictions.add([{**row, "score": 7.0} for row in rows])
    predictions.finish()
    with pytest.raises(DataError, match=r"drawn-vqa\.parquet: 0\.score: .*less than or equal to 1, found 7\.0"):
        compare_folders(copy, strong)
