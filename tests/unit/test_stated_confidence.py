"""Stated confidence: its grammar, its proper scoring rule, and the probe that constant statements do not pay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.probes.confidence import SHARES, probe_confidence
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.rewards.score import calibrated
from geovlm_ray.tasks.answers.grammar import parse_response, written_response
from geovlm_ray.training.preflight import prepare

ASKED = "Write <think>, <answer>, and how sure you are from 0 to 1 between <confidence> and </confidence>."
QUESTION = Example("1", "vqa", ("a.png",), "Is there a ship?", "yes")


@pytest.mark.parametrize(("stated", "value"), [("0", 0.0), ("1.0", 1.0), (" 0.85 ", 0.85), (".5", 0.5), ("1", 1.0)])
def test_confidence_is_a_number_from_0_to_1(stated: str, value: float) -> None:
    parsed = parse_response(f"<think>a</think><answer>yes</answer>\n<confidence>{stated}</confidence>\n")
    assert parsed == ("a", "yes", value)


@pytest.mark.parametrize("stated", ["", "80", "80%", "1.5", "-0.1", "high", "nan", "1e-1", "0.5</confidence>0.6"])
def test_other_statements_break_the_grammar(stated: str) -> None:
    assert parse_response(f"<think>a</think><answer>yes</answer><confidence>{stated}</confidence>") is None


def test_confidence_comes_once_and_last() -> None:
    tail = "<confidence>0.5</confidence>"
    assert parse_response(f"<think>a</think>{tail}<answer>yes</answer>") is None
    assert parse_response(f"<think>a</think><answer>yes</answer>{tail}{tail}") is None
    assert parse_response(f"<think>a</think><answer>yes{tail}</answer>{tail}") == ("a", f"yes{tail}", 0.5)
    assert parse_response(written_response("yes", "a", 0.25)) == ("a", "yes", 0.25)
    assert parse_response(written_response("yes"), "none") == (None, "yes", None)


def test_a_response_without_the_wanted_confidence_is_unparseable_and_the_reverse() -> None:
    stating, plain = written_response("yes", "a", 0.5), written_response("yes", "a")
    brier, none = RewardConfig(confidence="brier"), RewardConfig()
    examples = [QUESTION, QUESTION]
    assert [s.status for s in score_batch([stating, plain], examples, brier)] == ["ok", "unparseable"]
    assert [s.status for s in score_batch([stating, plain], examples, none)] == ["unparseable", "ok"]


@pytest.mark.parametrize("combine", ["sum", "weighted", "gated"])
def test_total_has_the_brier_score_and_accuracy_stays(combine: str) -> None:
    config = RewardConfig(confidence="brier", combine=combine, format_weight=0.2)  # type: ignore[arg-type]
    responses = [written_response(answer, "a", 0.7) for answer in ("yes", "no")]
    right, wrong = score_batch(responses, [QUESTION] * 2, config)
    assert (right.accuracy, wrong.accuracy) == (1.0, 0.0)
    assert right.components["brier"] == pytest.approx(0.09)
    assert (wrong.components["confidence"], wrong.components["brier"]) == pytest.approx((0.7, 0.49))
    values = [(1 + 1 - 0.09) / 2, (1 + 0 - 0.49) / 2]
    totals = {"sum": [1 + v for v in values], "weighted": [0.2 + 0.8 * v for v in values], "gated": values}
    assert [right.total, wrong.total] == pytest.approx(totals[combine])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_the_mean_is_highest_for_the_mean_accuracy(accuracies: list[float], other: float) -> None:
    honest = float(np.mean(accuracies))
    means = [np.mean([calibrated(a, q) for a in accuracies]) for q in (honest, other)]
    assert means[0] >= means[1] - 1e-12
    assert all(0 <= calibrated(a, other) <= 1 for a in accuracies)


def test_probe_says_that_constants_do_not_pay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RewardConfig(confidence="brier")
    rows = probe_confidence([QUESTION, Example("2", "scene_classification", ("a.png",), "?", ("port",))], config, None)
    assert [row.share for row in rows] == list(SHARES)
    assert not any(row.gamed_by for row in rows)
    by_share = {row.share: row for row in rows}
    assert by_share[0.5].honest == by_share[0.5].constants[0.5] > by_share[0.5].constants[1.0]
    assert by_share[1.0].honest > by_share[1.0].constants[0.5]
    records = tmp_path / "a.jsonl"
    answers = ("yes", "no", "3", "red", "north", "a forest", "12", "beside the road")
    lines = [{"id": a, "task": "vqa", "target": a, "question": "What is there?"} for a in answers]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code = main(["score", "--probe", str(records), "reward.confidence=brier"])
    output = capsys.readouterr()
    assert code == 0, output.err
    assert "Mean reward by share of right answers and stated confidence:\n right" in output.out


def test_prompt_must_ask_for_the_confidence() -> None:
    with pytest.raises(
        ConfigError, match=r"reward\.confidence=brier: expected a prompt\.system that asks for a number"
    ):
        prepare(load_config("demo", ["reward.confidence=brier", "run.name=a"]))
    config = load_config("demo", ["reward.confidence=brier", f"prompt.system={ASKED}"])
    config.reward.check_prompt(config.prompt.system)
