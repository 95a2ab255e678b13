"""A report in a browser: it executes no script from completions, data or settings, and fits a narrow screen."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.sample_rows import example_columns
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.evaluation.validation import held_out_summary, write_completions
from geovlm_ray.observability.run_recorder import RunRecorder, TrainingWarning
from geovlm_ray.report.html import write_report
from geovlm_ray.training.health import HealthMonitor
from tests.system.test_run_records import ADVANTAGES, log

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


@pytest.fixture
def hostile_run(tmp_path: Path) -> Path:
    """A run directory whose texts are all hostile."""
    config = load_config("demo", ["data.stages=[]"])
    prompt = config.prompt.model_copy(update={"system": HOSTILE})
    (tmp_path / "config.yaml").write_text(to_yaml(config.model_copy(update={"prompt": prompt})))
    example = dataclasses.replace(
        scene_example("vqa", 0, 0), id=HOSTILE, dataset=HOSTILE, question=HOSTILE, target=HOSTILE
    )
    sample = Sample((1,), (-0.5,), HOSTILE, "stop", 0, RewardScore(0.0, 0.0, 0.0, {HOSTILE: 1.0}, HOSTILE))
    other = dataclasses.replace(sample, reward=RewardScore(1.0, 1.0, 0.0))
    recorder = RunRecorder(tmp_path, 1, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(0)
    for step in (1, 2):
        log(recorder, step, [SampleGroup(Prompt(0, example), (sample, other))])
    recorder.warn(2, [TrainingWarning(HOSTILE, HOSTILE)])
    recorder.close()
    columns = example_columns(example)
    row = {"mode": "greedy", "id": columns.pop("example_id"), **columns, "response": HOSTILE, "reward": 0.0}
    rows = [{**row, "mode": mode} for mode in ("sampled", "greedy")]
    for when in ("before", "after"):
        write_completions(rows, tmp_path / f"heldout_{when}.jsonl")
    constants = {"vqa": ConstantAnswer(HOSTILE, [0.0])}
    summary = {
        "steps": 1,
        "seconds": 1.0,
        "parity_max_abs": 0.0,
        "heldout": held_out_summary(rows, rows, constants, majorities=constants),
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_report_escapes_scripts_in_completions_dataset_and_config(hostile_run: Path) -> None:
    dom = rendered_dom(write_report(hostile_run), hostile_run / "profile")
    assert "owned" in dom
    assert "<title>owned</title>" not in dom
    assert "<script>document.title" not in dom
    assert '<img src="x"' not in dom


def sideways_scroll(page: str, folder: Path) -> int:
    """Pixels by which a page is wider than a screen of 390 pixels."""
    measure = "d = document.querySelector('iframe').contentDocument.documentElement; "
    frame = folder / "frame.html"
    frame.write_text(
        "<html><head><title></title></head><body>"
        f'<iframe width="390" height="800" style="border: 0" srcdoc="{html.escape(page)}" '
        f'onload="{measure}document.title = d.scrollWidth - d.clientWidth"></iframe></body></html>'
    )
    title = re.search("<title>(.*?)</title>", rendered_dom(frame, folder / "profile"))
    assert title
    return int(title[1])


def test_report_does_not_scroll_sideways_on_a_narrow_screen(hostile_run: Path) -> None:
    assert (
        sideways_scroll("<!doctype html><body style='margin: 0'><div style='width: 500px'>x</div>", hostile_run) > 100
    )
    assert sideways_scroll(write_report(hostile_run).read_text(), hostile_run) == 0
