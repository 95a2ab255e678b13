"""Answers as models write them: the default rewards score them within bounds that were judged before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.answers import ANSWERS, Judged, judged_answers, table
from geovlm_ray.tasks import TASKS
from tests.rs import RS

CASES = RS.parent / "cases" / "answers.jsonl"
SINGLE_ANSWER_TASKS = (
    *("vqa", "scene_classification", "multilabel_classification", "temporal_classification", "damage_assessment"),
)
MIN_WITHIN = 0.97
"""Share of judged answers that the rewards score within their bounds."""


def outside(answers: list[Judged]) -> list[str]:
    """The answers outside their bounds, one a line."""
    return [f"{a.verdict}, {a.accuracy:.3f}: {json.dumps(a.record)}" for a in answers if a.verdict != "within"]


@pytest.mark.skipif(not CASES.is_file(), reason=f"example answers are missing: {CASES.name}")
def test_example_answers_score_within_their_bounds() -> None:
    answers = judged_answers([CASES])
    assert len({answer.task for answer in answers}) > 5
    assert not outside(answers)


@pytest.mark.parametrize("file", sorted(ANSWERS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_judged_answers_score_within_their_bounds(file: Path) -> None:
    answers = judged_answers([file])
    wrong = [answer for answer in answers if answer.verdict != "within"]
    assert {answer.task for answer in answers} <= TASKS.keys()
    assert len(wrong) <= (1 - MIN_WITHIN) * len(answers), table(answers)
    assert not outside([answer for answer in wrong if answer.record.get("disagrees") != "judgement"])


def test_about_a_third_of_the_judged_answers_are_wrong_or_partly_right() -> None:
    answers = judged_answers([ANSWERS / f"{task}.jsonl" for task in SINGLE_ANSWER_TASKS])
    for task in SINGLE_ANSWER_TASKS:
        imperfect = [a.record["high"] < 1 for a in answers if a.task == task]
        assert len(imperfect) >= 200
        assert 0.25 <= sum(imperfect) / len(imperfect) <= 0.5


def test_table_counts_the_answers_by_verdict() -> None:
    judged = [Judged("vqa", {"low": 0.8, "high": 1}, value) for value in (1.0, 0.5)]
    lines = table([*judged, Judged("vqa", {"low": 0, "high": 0.2}, 0.9)]).splitlines()
    assert lines[1].split() == ["vqa", "3", "1", "1", "1", "66.7%"]
    assert lines[-1].split() == ["total", "3", "1", "1", "1", "66.7%"]
