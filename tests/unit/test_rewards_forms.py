"""Invariants of every reward form of every task."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS
from tests.unit.reward_examples import SAMPLES, accuracy, embedder, example, response, score

CASES = [(task, form) for task in TASKS for form in REWARDS if REWARDS[form].target_kind == TASKS[task].target_kind]
WITHOUT_MODEL = [(t, f) for t, f in CASES if not needs_embedder(t, RewardConfig(forms={t: f}))]

ADVERSARIAL = {
    "nothing": "",
    "spaces": " \t\n",
    "not a number": "[nan, 1, 2, 3] [[Infinity, 0, 1, 1]]",
    "out of range": "[1e999, 0, 1, 1] 1e999 " + "9" * 5000,
    "fullwidth digits": "[１, ２, ３, ４] １ ２ ٣",
    "brackets": "[" * 15_000 + "]" * 15_000,
    "angles": "<" * 30_000,
    "many boxes": "[[1,2,3,4]]" * 2500,
    "many words": "red ship and " * 2000,
    "many labels": "a,b;" * 7000,
    "one long word": "a" * 30_000,
    "lone surrogates": "\ud800 ship \udfff",
    "control characters": "\x00\x01\x1b[31m ship \x7f\u202e",
    "folding": "İı ſ ǅ ß",
    "no text at all": "\u200b",
    "hostile json": '{"bbox_2d": [NaN, 1, 2, 3], "label": "a"}',
    "deep json": '[{"a":' * 2000,
}


@pytest.mark.parametrize(("task", "form"), CASES)
def test_ground_truth_scores_one(task: str, form: str) -> None:
    target, answer = SAMPLES[task]
    assert accuracy(answer, example(task, target), form) == 1.0


@pytest.mark.parametrize(("task", "form"), WITHOUT_MODEL)
def test_adversarial_answers_get_a_score_and_a_status(task: str, form: str) -> None:
    config = RewardConfig(forms={task: form}, rotated=task == "referred_object_detection")
    dialects = ("brackets", "geochat", "tagged", "json", "polygons") if "boxes" in SAMPLES[task][1] else ("brackets",)
    for dialect in dialects:
        record = dataclasses.replace(example(task, SAMPLES[task][0]), dialect=dialect)
        scores = score_batch([response(text) for text in ADVERSARIAL.values()], [record] * len(ADVERSARIAL), config)
        for name, result in zip(ADVERSARIAL, scores, strict=True):
            assert 0 <= result.accuracy <= 0.5, name
            assert result.status in ("ok", "unparseable"), name
            assert all(map(math.isfinite, result.components.values())), name


def test_adversarial_answers_do_not_break_sbert() -> None:
    names = ("lone surrogates", "control characters", "no text at all", "folding", "spaces")
    record = example("change_captioning", SAMPLES["change_captioning"][0])
    scores = score_batch([response(ADVERSARIAL[n]) for n in names], [record] * len(names), RewardConfig(), embedder())
    assert all(0 <= s.accuracy < 0.2 for s in scores)
    assert scores[-1].status == "unparseable"


@given(st.text(max_size=120), st.sampled_from(WITHOUT_MODEL))
def test_any_text_gets_a_score_and_a_status(text: str, case: tuple[str, str]) -> None:
    record = example(case[0], SAMPLES[case[0]][0])
    for answer in (text, response(text)):
        (result,) = score_batch([answer], [record], RewardConfig(forms={case[0]: case[1]}))
        assert 0 <= result.accuracy <= 1
        assert 0 <= result.total <= 2
        assert result.status in ("ok", "unparseable")


def test_malformed_response_scores_zero() -> None:
    record = example("vqa", "yes")
    for broken in ("yes", "<answer>yes</answer>", response("yes") + ".", "<think>a</think><answer>yes"):
        (result,) = score_batch([broken], [record], RewardConfig())
        assert (result.total, result.format, result.status) == (0, 0, "unparseable")


def test_response_over_max_chars_is_not_parsed() -> None:
    config = RewardConfig(max_chars=len(response("yes")))
    fits, over = score_batch([response("yes"), response("yes ")], [example("vqa", "yes")] * 2, config)
    assert (fits.total, fits.status) == (2, "ok")
    assert (over.total, over.format, over.status) == (0, 0, "too_long")
    assert score_batch(["<" * (1 << 20)], [example("vqa", "yes")], RewardConfig())[0].status == "too_long"


def test_think_none_rejects_reasoning() -> None:
    config = RewardConfig(think="none")
    record = example("vqa", "yes")
    right, wrong = score_batch(["<answer>yes</answer>", response("yes")], [record] * 2, config)
    assert (right.total, wrong.total) == (2, 0)


def test_batch_scores_equal_individual_scores() -> None:
    tasks = [task for task, _ in WITHOUT_MODEL if not needs_embedder(task, RewardConfig())]
    answers = [response(SAMPLES[task][1]) for task in tasks] + ["broken", response("[[9, 9, 99, 99]]")]
    records = [example(task, SAMPLES[task][0]) for task in [*tasks, "vqa", "object_detection"]]
    together = score_batch(answers, records, RewardConfig())
    assert together == [score_batch([a], [r], RewardConfig())[0] for a, r in zip(answers, records, strict=True)]
    assert score_batch([], [], RewardConfig()) == []


def test_response_and_example_counts_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_batch(["a", "b"], [example("vqa", "yes")], RewardConfig())


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({}, 1.5),
        ({"combine": "weighted"}, 0.2 + 0.8 * 0.5),
        ({"combine": "weighted", "format_weight": 0.5}, 0.75),
        ({"combine": "gated"}, 0.5),
        ({"normalize": {"vqa": (0.25, 0.75)}}, 1.5),
        ({"normalize": {"vqa": (0.5, 1.0)}}, 1.0),
        ({"normalize": {"vqa": (0.0, 0.5)}}, 2.0),
        ({"normalize": {"image_captioning": (0.5, 1.0)}}, 1.5),
    ],
)
def test_total_combines_format_and_accuracy(changes: dict, total: float) -> None:
    result = score("red", example("vqa", "red roof"), **changes)
    assert (result.accuracy, result.total) == (0.5, pytest.approx(total))


def test_presets_select_the_reward_forms() -> None:
    robust, paper = RewardConfig(), RewardConfig(preset="paper", forms={"vqa": "equivalence"})
    assert {task: robust.form(task) for task in TASKS} == {task: TASKS[task].default_reward for task in TASKS}
    assert paper.form("vqa") == "equivalence"
    assert paper.form("image_captioning") == "levenshtein"
