"""A run resumes on the content it was begun with, and up to a step that it has not passed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from geovlm_ray.core.errors import ConfigError, RunError, StartError
from geovlm_ray.report.html import write_report
from geovlm_ray.training.sft_log import sft_summary
from tests.unit.datasets import write_dataset, write_image
from tests.unit.resuming import STEPS, STOPPED, SmallRun, vqa, write_files

OTHER_WEIGHTS = {"model/model.safetensors": "other weights"}


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A run that ended after `STOPPED` steps."""
    run = SmallRun.create(tmp_path, monkeypatch)
    run.stop()
    assert run.steps() == list(range(1, STOPPED + 1))
    return run


def ids(run: SmallRun, when: str) -> list[str]:
    """Ids of the held-out examples that were answered, sampled and greedy."""
    return [json.loads(line)["id"] for line in (run.run / f"heldout_{when}.jsonl").open()]


def test_changed_reward_is_refused_and_accepted_on_request_in_contents_log_and_report(stopped: SmallRun) -> None:
    metrics = (stopped.run / "metrics.jsonl").read_bytes()
    write_files(stopped.folder, {"reward/helper.py": "LIMIT = 2"})
    with pytest.raises(RunError, match=r"^run directory runs/a was begun with other content: reward .*helper\.py: "):
        stopped.train()
    assert (stopped.run / "metrics.jsonl").read_bytes() == metrics
    stopped.train(accept=True)
    assert stopped.steps() == list(range(1, STEPS + 1))
    (accepted,) = json.loads((stopped.run / "contents.json").read_text())["changes"]
    assert accepted["step"] == STOPPED
    (listed,) = accepted["differences"]["reward reward/ships.py:score"]
    assert listed in (stopped.run / "report.html").read_text()
    assert listed in (stopped.run / "logs" / "driver.jsonl").read_text()
    assert (stopped.run / "undone" / "heldout_before-1.jsonl").is_file()
    stopped.train(f"run.steps={STEPS + 1}")
    assert stopped.steps()[-1] == STEPS + 1


def test_fewer_steps_than_reached_are_refused(stopped: SmallRun) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"run\.steps: expected at least 2, the step that .*a has .*, found 1;"):
            stopped.train("run.steps=1")
        stopped.train("run.steps=2")
    assert json.loads((stopped.run / "summary.json").read_text())["steps"] == 2


def test_results_of_fewer_steps_are_set_aside_when_a_run_is_extended(stopped: SmallRun) -> None:
    finished = stopped.train()
    assert stopped.train() == json.loads(json.dumps(finished))
    with pytest.raises(StartError):
        stopped.train(f"run.steps={STEPS + 4}", stop_after=STEPS + 2)
    with pytest.raises(ConfigError, match=rf"run\.steps: expected at least {STEPS + 2}, the step .* found {STEPS};"):
        stopped.train()
    for name in ("summary.json", "heldout_after.jsonl"):
        assert not (stopped.run / name).exists()
        assert (stopped.run / "undone" / f"{Path(name).stem}-1{Path(name).suffix}").is_file()
    write_report(stopped.run)
    assert stopped.train(f"run.steps={STEPS + 4}")["steps"] == STEPS + 4


def test_answers_before_training_are_made_again_for_other_held_out_records(stopped: SmallRun) -> None:
    records = [*(vqa(k) for k in range(12)), *(vqa(k, "yes", "test") for k in range(4, 8))]
    write_dataset(stopped.folder / "data", records, shards=2)
    summary = stopped.train(accept=True)
    assert ids(stopped, "before") == ids(stopped, "after")
    assert set(ids(stopped, "after")) == {"test4", "test5", "test6", "test7"}
    assert summary["heldout"]["greedy"]["change"] == {"mean": 0, "se": 0, "n": 4, "interval": (0, 0)}
    former = (stopped.run / "undone" / "heldout_before-1.jsonl").read_text()
    assert '"test0"' in former


def test_answers_before_training_are_checked_without_a_record_of_the_content(stopped: SmallRun) -> None:
    (stopped.run / "contents.json").unlink()
    before = stopped.run / "heldout_before.jsonl"
    before.write_text(before.read_text().replace("Is there a ship?", "Is there a boat?"))
    stopped.train()
    assert "boat" not in before.read_text()


def test_other_base_weights_leave_no_comparison_with_before_training(stopped: SmallRun) -> None:
    write_files(stopped.folder, OTHER_WEIGHTS)
    reason = stopped.train(accept=True)["heldout"]["incomparable"]
    assert re.match(r"the base model has changed since \(.*, after step 2: model model/model.safetensors", reason)
    assert f"training cannot be compared: {reason}" in (stopped.run / "report.html").read_text()


def test_other_base_weights_before_the_first_step_are_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SmallRun.create(tmp_path, monkeypatch)
    run.stop(after=0)
    write_files(tmp_path, OTHER_WEIGHTS)
    assert run.train(accept=True)["heldout"]["greedy"]["change"]["mean"] == 0


def test_evaluations_on_other_records_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = {"id": "b", "task": "vqa", "images": ["b.png"], "prompt": "Is there a ship?", "reference": "no"}
    write_image(tmp_path / "b.png", 0)
    settings = (f"evaluation.benchmarks=[{tmp_path}/b.jsonl]", "evaluation.every=2")
    write_files(tmp_path, {"b.jsonl": json.dumps(benchmark) + "\n"})
    run = SmallRun.create(tmp_path, monkeypatch, *settings)
    run.stop()
    write_files(tmp_path, {"b.jsonl": json.dumps({**benchmark, "reference": "yes"}) + "\n"})
    with pytest.raises(RunError, match=rf"benchmark b {tmp_path}/b\.jsonl: expected xxh3:\w+, found xxh3"):
        run.train()
    run.train(accept=True)
    evaluations = run.run / "evaluations"
    assert (evaluations / "undone" / "step-000000-1").is_dir()
    assert [p.name for p in sorted(evaluations.glob("step-*"))] == ["step-000002", "step-000004"]
    best = json.loads((run.run / "checkpoints" / "best.json").read_text())
    assert best["b-vqa"] == {"step": 4, "value": 1.0}


def test_report_names_held_out_records_that_differ(stopped: SmallRun) -> None:
    after = stopped.run / "heldout_after.jsonl"
    after.write_text((stopped.run / "heldout_before.jsonl").read_text().replace("test2", "test9"))
    write_report(stopped.run)
    expected = "cannot be compared: heldout_before.jsonl has vqa test2 where heldout_after.jsonl has vqa test9."
    assert expected in (stopped.run / "report.html").read_text()


def test_best_evaluation_of_fine_tuning_is_on_the_records_of_the_last() -> None:
    rows = [
        {"step": step, "seconds": 1, "tokens": 1, "loss": 1, "eval/loss": loss, "eval/token_accuracy": 0.5}
        for step, loss in enumerate((0.2, 0.6, 0.5, 0.7), 1)
    ]
    assert sft_summary(rows)["evaluation"]["best"]["step"] == 1
    assert sft_summary(rows, changed=[1])["evaluation"]["best"]["step"] == 3
    assert sft_summary(rows, changed=[1, 4])["evaluation"]["best"]["step"] == 3


def test_another_machine_resumes_from_the_mirror_on_the_same_content_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"checkpoint.url=file://{tmp_path}/mirror"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    SmallRun.create(first, monkeypatch, url).stop()
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(second)
    elsewhere = SmallRun(second, (url,))
    write_files(second, OTHER_WEIGHTS)
    with pytest.raises(RunError, match=r"model model/model\.safetensors: expected"):
        elsewhere.train()
    with pytest.raises(ConfigError, match=r"learner\.lr was 0\.0002, is now 0\.1"):
        elsewhere.train("learner.lr=0.1", accept=True)
    shutil.copy(first / "model" / "model.safetensors", second / "model")
    elsewhere.train()
    assert elsewhere.steps() == [3, 4]
