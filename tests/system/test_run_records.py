"""Files of a run: metrics, completions and report."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.sample_rows import write_rows
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.data.scenes import demonstration
from geovlm_ray.learner.batch_advantages import batch_advantages
from geovlm_ray.observability.run_recorder import ROLLOUT_SCHEMA, RunRecorder
from geovlm_ray.observability.trackers.base import COLUMNS
from geovlm_ray.report.html import write_report
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.training.batch_metrics import batch_metrics
from geovlm_ray.training.health import HealthMonitor
from geovlm_ray.training.shown_completions import shown_completions

CONFIG = load_config("demo", ["data.stages=[]", "rollout.prompts_per_step=12"])


def scored_batch(step: int) -> list[SampleGroup]:
    """Ideal, malformed and wrong completions of every task."""

    def generate(prompt: Prompt) -> SampleGroup:
        texts = (
            demonstration(prompt.example),
            "<think>no answer",
            "<think>a</think><answer>[[10, 10, 60, 60]]</answer>",
        )
        return SampleGroup(prompt, tuple(Sample((1, 2), (-0.1, -0.2), text, "stop", step) for text in texts))

    sampler = PromptSampler(SceneStream(0), CONFIG.data, 12)
    embedder = SbertEmbedder.from_config(CONFIG.reward.sbert)
    return score_groups([generate(p) for p in sampler.batch(step)], CONFIG.reward, embedder)


ADVANTAGES = partial(batch_advantages, config=CONFIG.learner, max_completion_tokens=CONFIG.rollout.max_tokens)


def log(recorder: RunRecorder, step: int, groups: list[SampleGroup]) -> None:
    timings = {f"seconds/{part}": 0.1 for part in ("rollout", "reward", "learner", "sync", "step")}
    recorder.log_step(
        step, {**batch_metrics(groups, step), **timings, "throughput/tokens_per_s": 1.0}, {"trained": groups}
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with three logged steps."""
    (tmp_path / "config.yaml").write_text(to_yaml(CONFIG))
    recorder = RunRecorder(tmp_path, 3, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(0)
    groups = scored_batch(0)
    for step in (1, 2, 3):
        log(recorder, step, groups)
    recorder.close()
    return tmp_path


def test_every_completion_is_stored_with_reward_and_weight_version(run: Path) -> None:
    rows = pq.read_table(run / "rollouts" / "step-000001.parquet").to_pylist()
    assert len(rows) == 36
    ideal = [row for row in rows if row["sample"] == 0]
    assert [row["reward"] for row in ideal] == pytest.approx([2.0] * 12)
    assert all(row["status"] == "unparseable" and row["format"] == 0 for row in rows if row["sample"] == 1)
    detection = next(row for row in ideal if row["task"] == "object_detection")
    assert json.loads(detection["components"])["matched_iou"] == 1
    assert json.loads(detection["target"])[0]
    assert detection["token_ids"] == [1, 2]
    assert detection["weight_version"] == 0
    assert {row["group_status"] for row in rows} == {"trained"}


def test_completions_of_a_record_that_cannot_be_scored_are_stored_apart(run: Path) -> None:
    recorder = RunRecorder(run, 4, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(3)
    shown, unscorable, *groups = scored_batch(0)
    invalid = tuple(replace(s, reward=RewardScore(0, 0, 0, status="invalid_record")) for s in unscorable.samples)
    bad = [replace(shown, samples=(), problem="no image"), replace(unscorable, samples=invalid, problem="no target")]
    metrics = {**batch_metrics(groups, 3), "seconds/step": 1.0, "throughput/tokens_per_s": 1.0}
    recorder.log_step(4, metrics, {"trained": groups, "bad": bad})
    recorder.close()
    rows = pq.read_table(run / "rollouts" / "step-000004.parquet").to_pylist()
    assert Counter(row["group_status"] for row in rows) == {"trained": 30, "bad": 3}
    assert {row["status"] for row in rows if row["group_status"] == "bad"} == {"invalid_record"}
    assert write_report(run).is_file()


def test_rewind_discards_steps_after_the_checkpoint(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    recorder = RunRecorder(run, 3, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(2)
    recorder.close()
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert sorted(f.name for f in (run / "rollouts").glob("*.parquet")) == [
        "step-000001.parquet",
        "step-000002.parquet",
    ]


def test_completions_of_repeated_steps_are_moved_to_undone(run: Path) -> None:
    original = (run / "rollouts" / "step-000003.parquet").read_bytes()
    for _ in range(2):
        recorder = RunRecorder(run, 3, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
        recorder.rewind(2)
        log(recorder, 3, scored_batch(0))
        recorder.close()
    undone = run / "rollouts" / "undone"
    assert sorted(f.name for f in undone.iterdir()) == ["step-000003-1.parquet", "step-000003-2.parquet"]
    assert (undone / "step-000003-1.parquet").read_bytes() == original


def test_report_is_one_file_with_plots_and_images(run: Path) -> None:
    page = write_report(run).read_text()
    assert "http://www.w3.org" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert page.count("data:image/jpeg;base64,") >= 3 * 36
    for text in ("object_detection", "matched_iou", "unparseable", "&lt;think&gt;no answer", "config.yaml"):
        assert text in page
    assert "Nothing is known yet about held-out examples" in page


def test_charts_and_images_have_text_alternatives(run: Path) -> None:
    page = write_report(run).read_text()
    assert page.count("<svg") == page.count('role="img" aria-label="Chart, ') > 8
    assert page.count("<img") == len(re.findall(r'<img alt="[^"]+"', page))
    assert "true boxes (blue, solid): 1; predicted boxes (orange, dashed): 1" in page


def test_samples_that_were_not_trained_have_no_advantage_in_the_report(run: Path) -> None:
    recorder = RunRecorder(run, 4, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(3)
    groups = scored_batch(0)
    metrics = {**batch_metrics(groups, 4), "seconds/step": 1.0, "throughput/tokens_per_s": 1.0}
    recorder.log_step(4, metrics, {"trained": groups[:1], "stale": groups[1:]})
    recorder.close()
    page = write_report(run).read_text()
    assert page.count("stale, not trained") == 3 * 11
    assert "advantage +" in page


def test_missing_images_are_named_in_the_report(run: Path) -> None:
    file = run / "rollouts" / "step-000001.parquet"
    rows = [{**row, "images": ["/nowhere/a.png"]} for row in pq.read_table(file).to_pylist()]
    write_rows(file, rows, ROLLOUT_SCHEMA)
    assert "image /nowhere/a.png: expected a file, found none" in write_report(run).read_text()


def test_report_of_a_run_without_completions(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(CONFIG))
    assert "No completions yet" in write_report(tmp_path).read_text()


def test_report_rejects_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        write_report(tmp_path)


def test_failed_metrics_write_is_reported(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, 3, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=f"{tmp_path}/metrics.jsonl cannot be written: No space left"):
        log(recorder, 1, scored_batch(0))
    recorder.close()


def test_pictures_and_tables_of_completions_are_in_tensorboard_every_few_steps(tmp_path: Path) -> None:
    monitor = HealthMonitor("required", 64)
    how = {"completions_every": 2, "select": shown_completions}
    recorder = RunRecorder(tmp_path, 4, Console(quiet=True), monitor, ADVANTAGES, **how)
    recorder.rewind(0)
    for step in (1, 2, 3, 4):
        log(recorder, step, scored_batch(step))
    recorder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert {e.step for e in events.Images("completions/object_detection/best")} == {2, 4}
    picture = Image.open(io.BytesIO(events.Images("completions/object_detection/best")[0].encoded_image_string))
    assert max(picture.size) == 320
    (text, _) = (e.tensor_proto.string_val[0].decode() for e in events.Tensors("completions/table"))
    header, _, *rows = text.splitlines()
    assert header == f"| {' | '.join(COLUMNS)} |"
    assert all(row.count("|") == header.count("|") for row in rows)
    assert {"object_detection", "vqa"} <= {row.split(" | ")[1] for row in rows}
