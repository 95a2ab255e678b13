"""Files torn by a kill or a power failure: repaired or named, never refused or left out in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects, write_atomically
from geovlm_ray.observability.run_recorder import RunRecorder
from geovlm_ray.report.html import write_report
from geovlm_ray.training.benchmark_evaluation import _rewind
from geovlm_ray.training.checkpoint import CheckpointFolder
from geovlm_ray.training.health import HealthMonitor
from tests.system.test_run_records import ADVANTAGES
from tests.unit.test_checkpoint import checkpoint_steps, save_checkpoints

Log = pytest.LogCaptureFixture
LINE = b'{"step": 1, "text": "a\xe2\x80\xa8b"}\n'


@pytest.mark.parametrize("torn", [b'{"step": 2, "te', b'{"step": 2, "text": "\xe2\x80', b"\0\0\0\0", b"[2"])
def test_torn_last_line_is_left_out_with_a_warning(torn: bytes, tmp_path: Path, caplog: Log) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(LINE + torn)
    assert read_objects(file) == [{"step": 1, "text": "a\u2028b"}]
    assert caplog.messages == [f"{file}, line 2 is incomplete, as after a kill or a power failure, and left out"]
    file.write_bytes(LINE + torn + b"\n" + LINE)
    with pytest.raises(DataError, match=f"{file}, line 2: expected"):
        read_objects(file)


def test_whole_last_line_without_its_end_is_read(tmp_path: Path, caplog: Log) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(LINE + LINE.rstrip())
    assert len(read_objects(file)) == 2
    assert not caplog.messages


def test_torn_metrics_and_completions_are_named_and_the_report_is_written(tmp_path: Path, caplog: Log) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(load_config("demo", ["run.steps=9"])))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n{"step": 2, "rew')
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "step-000001.parquet").write_bytes(b"PAR1")
    page = write_report(tmp_path).read_text()
    assert "1 of 9" in page
    assert "step-000001.parquet cannot be shown: " in page
    assert "metrics.jsonl, line 2 is incomplete" in caplog.text


def test_resumed_run_drops_a_torn_line_and_names_the_steps_without_records(tmp_path: Path, caplog: Log) -> None:
    recorder = RunRecorder(tmp_path, 9, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    lines = "".join(f'{{"step": {step}}}\n' for step in (1, 3))
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 4, "rew')
    (tmp_path / "rollouts" / "step-000001.parquet").touch()
    recorder.rewind(4)
    recorder.close()
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    assert caplog.messages == [
        f"{tmp_path}/metrics.jsonl, line 3 is incomplete, as after a kill or a power failure, and left out",
        f"{tmp_path}/metrics.jsonl: expected all steps from 1 to 4, found none of 2: 2, 4",
        f"{tmp_path}/rollouts: expected all steps from 1 to 4, found none of 3: 2, 3, 4",
    ]
    (tmp_path / "warnings.jsonl").write_text('{"kind": "stuck"}\n')
    with pytest.raises(DataError, match=r"warnings\.jsonl, line 1: expected a number 'step', found None"):
        RunRecorder(tmp_path, 9, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES).rewind(4)


@pytest.mark.parametrize("content", ["", '{"vqa": {"step": 1, "val', '{"vqa": 3}', "\0\0"])
def test_torn_scores_of_checkpoints_are_named_and_no_checkpoint_is_removed(
    content: str, tmp_path: Path, caplog: Log
) -> None:
    checkpoints = save_checkpoints(CheckpointFolder(tmp_path, keep=1), 0)
    (tmp_path / "best.json").write_text(content)
    save_checkpoints(checkpoints, 0, 0)
    assert checkpoint_steps(tmp_path) == [1, 2]
    assert f"{tmp_path}/best.json: " in caplog.text
    assert "no checkpoint is removed" in caplog.text
    checkpoints.restore_scores({1: {"vqa": 0.5}})
    save_checkpoints(checkpoints, 0, 0, 0)
    assert checkpoint_steps(tmp_path) == [1, 3]


def test_torn_results_of_an_evaluation_are_set_aside(tmp_path: Path, caplog: Log) -> None:
    checkpoints = save_checkpoints(CheckpointFolder(tmp_path / "checkpoints", keep=2), 0, 0)
    for step, content in ((1, '{"benchmarks": {"vqa": {"score": {"value": 0.5}}}}'), (2, '{"bench')):
        (tmp_path / "evaluations" / f"step-00000{step}").mkdir(parents=True)
        (tmp_path / "evaluations" / f"step-00000{step}" / "results.json").write_text(content)
    _rewind(tmp_path / "evaluations", checkpoints, 2)
    best = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert best["vqa"] == {"step": 1, "value": 0.5}
    assert (tmp_path / "evaluations" / "undone" / "step-000002-1" / "results.json").is_file()
    assert "step-000002/results.json" in caplog.text


def test_content_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_atomically(tmp_path / "a.json", "{}")
    assert calls == ["fsync", "replace"]
    write_atomically(tmp_path / "a.json", "[]", durable=False)
    assert calls == ["fsync", "replace", "replace"]
