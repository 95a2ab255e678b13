"""``geovlm-ray score``: scoring a JSONL file of responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from geovlm_ray.evaluation.scoring import score_lines
from geovlm_ray.rewards import RewardConfig
from tests.unit.reward_examples import SAMPLES, response


def record(**changes: Any) -> str:
    """An input line that scores 2, with changed fields."""
    return json.dumps({"id": "a", "task": "vqa", "response": response("yes"), "target": "yes"} | changes)


def scored(*lines: str, **settings: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Parsed output lines, and the problems."""
    output, problems = score_lines(lines, RewardConfig(**settings))
    return [json.loads(line) for line in output], problems


def test_one_output_line_per_input_line() -> None:
    lines = [record(), record(id=7, response=response("no")), record(id=None, response="yes")]
    output, problems = scored(*lines)
    assert not problems
    assert output == [
        {"id": "a", "total": 2.0, "format": 1.0, "accuracy": 1.0, "components": {"equivalent": 1.0}, "status": "ok"},
        {"id": 7, "total": 1.0, "format": 1.0, "accuracy": 0.0, "components": {"equivalent": 0.0}, "status": "ok"},
        {"id": None, "total": 0.0, "format": 0.0, "accuracy": 0.0, "components": {}, "status": "unparseable"},
    ]


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("scene_classification", ["Dense Residential"]),
        ("scene_classification", "Dense Residential"),
        ("object_detection", [[1, 2, 30, 40], {"box": [50, 50, 60, 60]}]),
        ("grounded_description", {"text": "two ships on water", "boxes": [[1, 2, 30, 40], [50, 50, 60, 60]]}),
        ("image_captioning", ["two ships on the left ."]),
    ],
)
def test_targets_of_every_json_form(task: str, target: Any) -> None:
    output, problems = scored(record(task=task, target=target, response=response(SAMPLES[task][1])))
    assert not problems
    assert output[0]["accuracy"] == 1.0


def test_record_frame_dialect_and_labels_are_used() -> None:
    geochat = record(
        task="object_detection",
        target=[[8, 26, 22, 37]],
        dialect="geochat",
        frame={"pixel": [512, 512]},
        response=response("{<8><26><22><37>}"),
    )
    vocabulary = ["a, b", "c", "d", "e", "f"]
    listed = record(task="multilabel_classification", target=["a, b"], labels=vocabulary, response=response("a, b, c"))
    output, problems = scored(geochat, listed)
    assert not problems
    assert [o["accuracy"] for o in output] == [1.0, pytest.approx(2 / 3)]


INVALID_LINES = {
    "not json": ("{", "Expecting property name"),
    "not an object": ("[1]", "expected an object"),
    "an unknown task": (record(task="segmentation"), "'segmentation'"),
    "a task that is not a string": (record(task=["vqa"]), "line 2"),
    "a target of the wrong type": (record(target=["yes"]), "expected a string"),
    "a response that is not a string": (record(response=5), "expected a string"),
    "an unknown dialect": (record(dialect="yaml"), "'yaml'"),
    "an invalid frame": (record(frame={"pixel": [0, 5]}), "frame"),
    "no target": (json.dumps({"id": "a", "task": "vqa", "response": ""}), "'target'"),
    "a non-finite coordinate": (record(task="object_detection", target=[[0, 0, 1, float("nan")]]), "nan"),
    "a huge coordinate": (record(task="object_detection", target=[[0, 0, 1, 10**400]]), "line 2"),
    "a 5,000-digit number": ('{"id": ' + "9" * 5000 + "}", "line 2"),
    "deep nesting": ("[" * 100_000, "line 2"),
}


def test_blank_lines_are_skipped_but_counted() -> None:
    output, problems = scored("\n", record(), "  \n", "{", "")
    assert [o["status"] for o in output] == ["ok", "invalid_record"]
    assert [p.partition(":")[0] for p in problems] == ["line 4"]


@pytest.mark.parametrize(("line", "message"), INVALID_LINES.values(), ids=INVALID_LINES)
def test_invalid_line_does_not_affect_other_lines(line: str, message: str) -> None:
    output, problems = scored(record(), line, record())
    assert [o["status"] for o in output] == ["ok", "invalid_record", "ok"]
    assert output[1]["total"] == 0
    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert message in problems[0]


def test_score_command_writes_a_file_and_reports_invalid_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(record().encode() + b"\n\xff\xfe\n" + record(response=response("no")).encode() + b"\n")
    assert main(["score", str(source), "--out", str(out), "reward.combine=gated"]) == 1
    assert [json.loads(line)["total"] for line in out.read_text().splitlines()] == [1.0, 0.0, 0.0]
    assert f"{source}, line 2: " in capsys.readouterr().err
    source.write_text(record() + "\n")
    assert main(["score", "reward.think=none", str(source)]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "unparseable"
