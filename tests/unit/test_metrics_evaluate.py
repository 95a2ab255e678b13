"""``geovlm-ray evaluate``: tables and JSON from prediction files, and errors for invalid input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from tests.rs import RS, needs_rs


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records))
    return path


def response(answer: str) -> str:
    return f"<think>so</think><answer>{answer}</answer>"


def record_of(task: str, answer: str, target: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "a", "task": task, "response": response(answer), "target": target, **fields}


def evaluate(tmp_path: Path, file: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    assert main(["evaluate", "--predictions", str(file), "--json", str(out), *arguments]) == 0
    return json.loads(out.read_text())


def test_evaluate_records_of_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    malformed = {**record_of("scene_classification", "", ["river"]), "response": "river"}
    file = write(tmp_path / "in.jsonl", record_of("scene_classification", "Forest", ["forest"]), malformed)
    found = evaluate(tmp_path, file)
    assert found.keys() == {"paper", "sound", "n"}
    assert found["n"] == 2
    assert found["paper"] == {"Classification accuracy": 0.5}
    assert found["sound"]["accuracy"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert found["sound"]["format"]["value"] == 0.5
    printed = capsys.readouterr().out
    assert "Classification accuracy" in printed
    assert "F1 macro" in printed


def test_records_of_multiple_tasks_are_separated_or_selected(tmp_path: Path) -> None:
    boxes = record_of("object_detection", "[[10, 10, 30, 30]]", [[10, 10, 30, 30]], frame="permille")
    file = write(tmp_path / "in.jsonl", record_of("vqa", "yes", "yes"), boxes)
    found = evaluate(tmp_path, file)
    assert found["n"] == 2
    assert found["paper"]["vqa/VQA accuracy"] == found["paper"]["object_detection/Precision @0.5"] == 1.0
    assert found["sound"]["object_detection/AP@0.5"]["value"] == pytest.approx(1.0)
    assert evaluate(tmp_path, file, "--task", "vqa")["paper"] == {"VQA accuracy": 1.0}


def test_the_paper_set_counts_malformed_boxes_as_predictions(tmp_path: Path) -> None:
    answer = "[[10, 10, 30, 30], [1, 2, 3]]"
    file = write(tmp_path / "in.jsonl", record_of("visual_grounding", answer, [[10, 10, 30, 30]]))
    found = evaluate(tmp_path, file)["paper"]
    assert found == {
        "Precision @0.5": 0.5,
        "Precision @0.25": 0.5,
        "single Objects": 0.5,
        "multiple Objects": 0.0,
    }


def test_answers_without_thinking_are_parsed_if_configured(tmp_path: Path) -> None:
    record = {**record_of("vqa", "", "yes"), "response": "<answer>yes</answer>"}
    file = write(tmp_path / "in.jsonl", record)
    assert evaluate(tmp_path, file)["sound"]["accuracy"]["value"] == 0.0
    assert evaluate(tmp_path, file, "reward.think=none")["sound"]["accuracy"]["value"] == 1.0


@needs_rs
def test_evaluate_an_earthdial_result_file(tmp_path: Path) -> None:
    file = RS / "A_text_eval" / "rs_detection" / "ship_dataset_v0.jsonl"
    found = evaluate(tmp_path, file, "--task", "rs_detection", "--format", "earthdial")
    assert found["n"] == 411
    assert found["paper"]["small Objects"] == pytest.approx(0.1047, abs=5e-4)
    for interval in found["sound"].values():
        assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1


DETECTION = {"answer": "[[1, 2, 3, 4, 0]]", "gt_bbox": "[[1, 2, 3, 4, 0]]", "size_group": "small"}


@pytest.mark.parametrize(
    ("records", "arguments", "message"),
    [
        ([], [], "expected at least one record, found none"),
        ([record_of("vqa", "yes", "yes")], ["--task", "object_detection"], "at least one record of object_detection"),
        ([record_of("vqa", "yes", "yes"), "{"], [], "in.jsonl, line 2: expected one JSON object"),
        ([{"id": 1, "task": "vqa", "response": ""}], [], "in.jsonl, line 1: expected the key 'target'"),
        ([record_of("vqa", "yes", "yes")], ["--task", "rs_vqa"], "found 'rs_vqa'; did you mean 'vqa'?"),
        ([DETECTION], ["--format", "earthdial"], "--format earthdial: expected --task"),
        ([DETECTION], ["--format", "earthdial", "--task", "vqa"], "'vqa': expected an evaluation folder"),
        (
            [DETECTION, {**DETECTION, "size_group": "huge"}],
            ["--format", "earthdial", "--task", "rs_detection"],
            "in.jsonl, line 2, size_group: expected one of small, medium, large, found 'huge'",
        ),
        (
            [{"answer": "x", "gt_bbox": "x"}],
            ["--format", "earthdial", "--task", "rs_detection"],
            "in.jsonl, line 1: expected the key 'size_group', found only 'answer', 'gt_bbox'",
        ),
        (
            [{**DETECTION, "answer": None}],
            ["--format", "earthdial", "--task", "rs_detection"],
            "in.jsonl, line 1, answer: expected a string, found NoneType",
        ),
        ([[1]], ["--format", "earthdial", "--task", "rs_vqa"], "in.jsonl, line 1: expected an object, found list"),
        ([DETECTION], ["--json", "/nowhere/out.json"], "--json /nowhere/out.json: expected an existing folder"),
    ],
)
def test_invalid_input_is_reported_in_one_line(
    records: list[Any], arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "in.jsonl", *records)
    assert main(["evaluate", "--predictions", str(file), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_missing_file_is_named_in_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--predictions", "/nowhere.jsonl"]) == 1
    assert "/nowhere.jsonl: expected a file, found none" in capsys.readouterr().err
