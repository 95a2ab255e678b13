"""A report opened in a browser executes no script from completions, datasets or the configuration."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.observability.tracking import RunTracker
from geovlm_ray.report.html import write_report
from geovlm_ray.rewards.monitor import HackingMonitor
from tests.unit.test_run_records import ADVANTAGES, log

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = (
    "</pre></td></title></style></textarea><script>document.title='owned'</script>"
    "<img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">"
    "' onmouseover=document.title='owned' autofocus onfocus=\"document.title='owned'\""
)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=3000", "--dump-dom"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="requires Chromium or Chrome in PATH"),
]


def rendered_dom(page: Path, profile: Path) -> str:
    """The DOM of a page after a browser has executed its scripts."""
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}", page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_browser_executes_unescaped_scripts(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<html><head><title>report</title></head><body>{HOSTILE}</body></html>")
    assert "<title>owned</title>" in rendered_dom(tmp_path / "page.html", tmp_path / "profile")


def test_report_escapes_scripts_in_completions_dataset_and_config(tmp_path: Path) -> None:
    config = load_config("demo", ["data.stages=[]"])
    prompt = config.prompt.model_copy(update={"system": HOSTILE})
    (tmp_path / "config.yaml").write_text(to_yaml(config.model_copy(update={"prompt": prompt})))
    example = dataclasses.replace(
        scene_example("vqa", 0, 0), id=HOSTILE, dataset=HOSTILE, question=HOSTILE, target=HOSTILE
    )
    sample = Sample((1,), (-0.5,), HOSTILE, "stop", 0, RewardScore(0.0, 0.0, 0.0, {HOSTILE: 1.0}, HOSTILE))
    other = dataclasses.replace(sample, reward=RewardScore(1.0, 1.0, 0.0))
    tracker = RunTracker(tmp_path, 1, Console(quiet=True), HackingMonitor(), ADVANTAGES)
    tracker.rewind(0)
    log(tracker, 1, [SampleGroup(Prompt(0, example), (sample, other))])
    tracker.close()
    dom = rendered_dom(write_report(tmp_path), tmp_path / "profile")
    assert "owned" in dom
    assert "<title>owned</title>" not in dom
    assert "<script>document.title" not in dom
    assert '<img src="x"' not in dom
