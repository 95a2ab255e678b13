"""Hostile texts inside the inputs of commands; `tests.long.test_hostile_commands` has the whole list, one by one."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.terminal import inert
from geovlm_ray.evaluation.metrics.bootstrap import Interval
from geovlm_ray.evaluation.results import Result, Results
from geovlm_ray.evaluation.tables import markdown
from geovlm_ray.report.curves import curve
from geovlm_ray.report.page import render
from tests.hostile import STRINGS, page_problem, problem
from tests.hostile_cases import (
    hostile_heartbeat,
    write_hostile_dataset,
    write_hostile_scored,
    write_hostile_source,
)
from tests.system.test_pages import summary
from tests.unit.datasets import write_image

ALL = "".join(text for name, text in STRINGS.items() if name != "long")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an image."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "scene.png", 0)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints; fails if there is a problem with it."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert not problem(code, captured.out, captured.err)
    return captured.out + captured.err


def write_hostile_run(folder: Path) -> None:
    """The files of a run with hostile names of tasks, metrics and benchmarks, and hostile answers."""
    values = summary(ALL)
    for name in ("constant", "majority", "most_common", "per_task"):
        values["heldout"][name][ALL] = values["heldout"][name].pop("vqa")
    metrics = {"reward/mean": 1.0, f"task/{ALL}/reward": 1.0, "seconds/step": 1.0, f"seconds/{ALL}": 0.9}
    results = {"benchmarks": {ALL: {"score": {"value": 0.5}}}}
    (folder / "config.yaml").write_text(to_yaml(load_config("demo")))
    (folder / "summary.json").write_text(json.dumps(values))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps({'step': n, **metrics})}\n" for n in (2, 3)))
    (folder / "warnings.jsonl").write_text(json.dumps({"step": 1, "kind": ALL, "message": ALL}) + "\n")
    (folder / "actors").mkdir()
    (folder / "actors" / "driver.json").write_text(json.dumps(hostile_heartbeat(ALL)))
    for step in (1, 2):
        (folder / "evaluations" / f"step-00000{step}").mkdir(parents=True)
        (folder / "evaluations" / f"step-00000{step}" / "results.json").write_text(json.dumps(results))


def test_report_and_top_of_a_hostile_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hostile_run(folder)
    run(capsys, "report", ".")
    page = (folder / "report.html").read_text()
    assert not page_problem(page)
    assert "\\x1b[31mred" in page
    assert "&lt;script&gt;alert(" in page
    run(capsys, "top", ".", "--once")


def test_datasets_with_hostile_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hostile_dataset(ALL, folder)
    run(capsys, "data", "validate", "data", "--max-bad", "1")
    run(capsys, "data", "stats", "data")
    run(capsys, "data", "preview", "data", "--out", "page.html", "--recipe", "demo")
    assert not page_problem((folder / "page.html").read_text())
    write_hostile_source(ALL, folder)
    run(capsys, "data", "convert", "samples", "source.jsonl", "out", "--max-bad", "1")


def test_responses_with_hostile_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hostile_scored(ALL, folder)
    assert "my[red]run" in run(capsys, "score", "x.jsonl")
    assert "my[red]run" in run(capsys, "evaluate", "--predictions", "x.jsonl")


def test_charts_show_hostile_names_as_text() -> None:
    svg = curve([{"step": n, ALL: n} for n in range(3)], {ALL: ALL}, ALL, "unit")
    assert not page_problem(svg)
    assert "\\x1b[31mred" in svg


def test_markdown_shows_hostile_texts_as_text() -> None:
    interval = Interval(0.5, 0.4, 0.6)
    result = Result(ALL, ALL, 1, {ALL: 0.5}, {ALL: interval}, interval, {}, {ALL: {ALL: 1.0}}, {})
    text = markdown(Results(ALL, {ALL: result}, {ALL: ALL}, {ALL: ALL}))
    for raw in ("<script", "<img", "[x](", "\n# h", "\x1b", "| a |"):
        assert raw not in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1


def test_templates_show_hostile_texts_as_text() -> None:
    page = render("sft.html", name=ALL, charts=[], changes=[ALL])
    assert not page_problem(page)
    assert html.escape(inert(ALL.splitlines()[-1])) in page
