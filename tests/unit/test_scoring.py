"""``geovlm-ray score``: a file of responses, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from geovlm_ray.evaluation.scoring import score_lines
from geovlm_ray.rewards import RewardConfig
from tests.unit.judging import SAMPLES, response


def record(**changes: Any) -> str:
    """A line of input that scores 2, with changes."""
    return json.dumps({"id": "a", "task": "vqa", "response": response("yes"), "target": "yes"} | changes)


def scored(*lines: str, **settings: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The output lines as objects, and the problems."""
    output, problems = score_lines(lines, RewardConfig(**settings))
    return [json.loads(line) for line in output], problems


def test_a_line_of_output_for_a_line_of_input() -> None:
    lines = [record(), record(id=7, response=response("no")), record(id=None, response="yes")]
    output, problems = scored(*lines)
    assert not problems
    assert output == [
        {"id": "a", "total": 2.0, "format": 1.0, "accuracy": 1.0, "components": {"jaccard": 1.0}, "status": "ok"},
        {"id": 7, "total": 1.0, "format": 1.0, "accuracy": 0.0, "components": {"jaccard": 0.0}, "status": "ok"},
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
def test_targets_of_every_form(task: str, target: Any) -> None:
    output, problems = scored(record(task=task, target=target, response=response(SAMPLES[task][1])))
    assert not problems
    assert output[0]["accuracy"] == 1.0


def test_frame_dialect_and_labels_of_a_record() -> None:
    geochat = record(
        task="object_detection",
        target=[[8, 26, 22, 37]],
        dialect="geochat",
        frame={"pixel": [512, 512]},
        response=response("{<8><26><22><37>}"),
    )
    names = ["a, b", "c", "d", "e", "f"]
    listed = record(task="multilabel_classification", target=["a, b"], labels=names, response=response("a, b, c"))
    output, problems = scored(geochat, listed)
    assert not problems
    assert [o["accuracy"] for o in output] == [1.0, pytest.approx(2 / 3)]


BAD = {
    "not json": ("{", "Expecting property name"),
    "no object": ("[1]", "expected an object"),
    "an unknown task": (record(task="segmentation"), "'segmentation'"),
    "a task that is no name": (record(task=["vqa"]), "line 2"),
    "a target of another form": (record(target=["yes"]), "expected a string"),
    "a response that is no text": (record(response=5), "expected a string"),
    "an unknown dialect": (record(dialect="yaml"), "'yaml'"),
    "a bad frame": (record(frame={"pixel": [0, 5]}), "frame"),
    "no target": (json.dumps({"id": "a", "task": "vqa", "response": ""}), "'target'"),
    "a coordinate that is not finite": (record(task="object_detection", target=[[0, 0, 1, float("nan")]]), "nan"),
    "a huge coordinate": (record(task="object_detection", target=[[0, 0, 1, 10**400]]), "line 2"),
    "a number of 5,000 digits": ('{"id": ' + "9" * 5000 + "}", "line 2"),
    "deep nesting": ("[" * 100_000, "line 2"),
}


def test_blank_lines_are_skipped_and_still_counted() -> None:
    output, problems = scored("\n", record(), "  \n", "{", "")
    assert [o["status"] for o in output] == ["ok", "invalid_record"]
    assert [p.partition(":")[0] for p in problems] == ["line 4"]


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD)
def test_a_bad_line_does_not_stop_the_rest(line: str, message: str) -> None:
    output, problems = scored(record(), line, record())
    assert [o["status"] for o in output] == ["ok", "invalid_record", "ok"]
    assert output[1]["total"] == 0
    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert message in problems[0]


def test_the_command_writes_a_file_and_reports_bad_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(record().encode() + b"\n\xff\xfe\n" + record(response=response("no")).encode() + b"\n")
    assert main(["score", str(source), "--out", str(out), "reward.combine=gated"]) == 1
    assert [json.loads(line)["total"] for line in out.read_text().splitlines()] == [1.0, 0.0, 0.0]
    assert f"{source}, line 2: " in capsys.readouterr().err
    source.write_text(record() + "\n")
    assert main(["score", "reward.think=none", str(source)]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "unparseable"
