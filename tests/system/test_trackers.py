"""Experiment trackers with their packages, without a network; trackers whose package is not installed are skipped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from geovlm_ray.config import load_config
from geovlm_ray.observability.trackers import TRACKERS
from geovlm_ray.observability.trackers.base import COLUMNS, ExperimentTracker, ShownCompletion

pytestmark = pytest.mark.slow
PICTURE = Image.new("RGB", (40, 30), "navy")
COMPLETION = ShownCompletion(
    "vqa/best", (1, "vqa", "a", "Is | there\na ship?", "<answer>yes</answer>", "yes", 1.5, 1.0, 0.5), PICTURE, "yes"
)


def opened(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentTracker:
    """A tracker without a network; skipped where its package is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    monkeypatch.chdir(folder)
    (folder / "demo").mkdir(exist_ok=True)
    return TRACKERS[name](load_config("demo", [f"run.dir={folder}", "run.project=ours"]))


@pytest.mark.parametrize("name", TRACKERS)
def test_tracker_takes_metrics_tables_and_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = opened(name, tmp_path, monkeypatch)
    tracker.log_metrics(1, {"reward/mean": 1.25})
    tracker.log_completions(1, [COMPLETION, ShownCompletion("vqa/worst", COMPLETION.values, None, "")])
    tracker.log_metrics(2, {"reward/mean": 1.5})
    tracker.close(failed=False)
    pictures = [file for file in tmp_path.rglob("*.png") if file.stat().st_size]
    assert pictures
    assert Image.open(pictures[0]).size == PICTURE.size


def test_wandb_records_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = opened("wandb", tmp_path, monkeypatch)
    tracker.log_completions(1, [COMPLETION])
    tracker.close(failed=True)
    (file,) = tmp_path.rglob("*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(COLUMNS)
    assert table["data"] == [list(COMPLETION.values)]
