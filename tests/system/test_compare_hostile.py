"""Hostile text in a comparison: page and terminal output."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.page import comparison_page
from geovlm_ray.evaluation.results import RESULTS
from tests.system.test_report_in_a_browser import BROWSER, HOSTILE, rendered_dom
from tests.unit.comparison import compare_folders, terminal_output, write_evaluation


def hostile_pair(tmp_path: Path) -> Comparison:
    example = dataclasses.replace(scene_example("vqa", 0, 0), id=HOSTILE, question=HOSTILE, target=HOSTILE)
    folders = []
    for name, score in (("<img src=x onerror=document.title='owned'>", 0.0), ("[bold]b\x1b[31m", 1.0)):
        folder = write_evaluation(tmp_path / name, [example] * 8, [score] * 8, HOSTILE)
        results = read_object(folder / RESULTS)
        results["model"] = HOSTILE
        results["benchmarks"]["b"] |= {"title": HOSTILE, "task": HOSTILE, "paper": {HOSTILE: 0.5}}
        write_atomically(folder / RESULTS, json.dumps(results))
        config = load_config("demo")
        prompt = config.prompt.model_copy(update={"system": f"{HOSTILE} {score}"})
        write_atomically(folder / "config.yaml", to_yaml(config.model_copy(update={"prompt": prompt})))
        folders.append(folder)
    return compare_folders(*folders)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome in PATH to open the page with")
def test_scripts_in_names_answers_and_settings_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text(comparison_page(hostile_pair(tmp_path)))
    dom = rendered_dom(tmp_path / "compare.html", tmp_path / "profile")
    assert "owned" in dom
    assert "<title>owned</title>" not in dom
    assert "<script>" not in dom
    assert '<img src="x"' not in dom


def test_terminal_output_escapes_markup_and_control_sequences(tmp_path: Path) -> None:
    output = terminal_output(hostile_pair(tmp_path))
    assert "[bold]b\\x1b[31m" in output
    assert "\x1b" not in output
