"""Batches from which nothing can be learnt: warnings, and the end of a run that cannot learn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from geovlm_ray.core.schema import Example, Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.learner.advantages import AdvantageSettings
from geovlm_ray.observability.run_recorder import TrainingWarning
from geovlm_ray.training.stuck import MIN_GROUPS, STUCK_STEPS, StuckMonitor

GROUPS = 4


def batch(
    rewards: Sequence[float] = (0.0, 2.0),
    *,
    task: str = "vqa",
    status: str = "ok",
    finish_reason: str = "stop",
    formatted: float = 1.0,
) -> list[SampleGroup]:
    """Groups of a task with these rewards."""
    prompt = Prompt(0, Example("a", task, (), "Is there a ship?", "yes"))
    scores = [RewardScore(reward, formatted, reward / 2, status=status) for reward in rewards]
    samples = tuple(Sample((1,), (-0.5,), "<answer>yes</answer>", finish_reason, 0, score) for score in scores)
    return [SampleGroup(prompt, samples)] * GROUPS


def warnings_of(batches: Sequence[list[SampleGroup]], **metrics: float) -> list[TrainingWarning]:
    monitor = StuckMonitor(64)
    return [warning for groups in batches for warning in monitor.update(groups, metrics)]


CAUSES = {
    "nothing_scored": batch(status="timeout"),
    "all_cut_off": batch(finish_reason="length"),
    "no_variance": batch((1.0, 1.0)),
}


def test_malformed_completions_do_not_hide_that_nothing_was_scored() -> None:
    malformed = batch((0.0, 0.0), status="unparseable", formatted=0.0)
    (warning,) = warnings_of([[*malformed, *batch(status="error")]] * STUCK_STEPS)
    assert warning.kind == "nothing_scored"
    assert "(status: error)" in warning.message


def test_batch_with_different_rewards_raises_no_warning() -> None:
    assert warnings_of([batch()] * 50, grad_norm=0.1) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [("nothing_scored", "(status: timeout)"), ("all_cut_off", "cut off at rollout.max_tokens=64; raise it")],
)
def test_certain_causes_are_reported_at_once(kind: str, words: str) -> None:
    (warning,) = warnings_of([CAUSES[kind]] * 3)
    assert warning.kind == kind
    assert words in warning.message


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (batch((0.5, 0.5)), "every completion has the reward 0.5; check that the reward depends on the answer"),
        (batch((0.5, 0.5), formatted=0.0), "no completion has the expected format; fine-tune the policy first"),
        ([*batch((0.5, 0.5)), *batch((1.0, 1.0))], "set loop.resample, or raise rollout.group_size"),
    ],
)
def test_groups_without_variance_are_reported_within_ten_steps_with_the_likely_cause(
    groups: list[SampleGroup], words: str
) -> None:
    for steps in range(1, STUCK_STEPS + 1):
        found = warnings_of([groups] * steps)
        enough = steps * len(groups) >= MIN_GROUPS or steps == STUCK_STEPS
        assert [warning.kind for warning in found] == ["no_variance"] * enough
    assert words in found[0].message
    assert "so nothing is learnt" in found[0].message


def test_zero_gradient_in_spite_of_different_rewards_is_reported() -> None:
    (warning,) = warnings_of([batch()] * STUCK_STEPS, grad_norm=0.0)
    assert warning.kind == "zero_gradient"
    assert "learner.group_accuracy" in warning.message


def test_warning_is_repeated_after_its_cause_was_gone() -> None:
    cut = CAUSES["all_cut_off"]
    assert [w.kind for w in warnings_of([cut, cut, batch(), cut])] == ["all_cut_off", "all_cut_off"]


def test_tied_groups_that_differ_teach_where_advantages_are_centred_over_the_batch() -> None:
    centred = AdvantageSettings(center="batch")
    for groups, expected in (([*batch((0.0, 0.0)), *batch((2.0, 2.0))], []), (batch((1.0, 1.0)), ["no_variance"])):
        monitor = StuckMonitor(64, centred)
        found = [w.kind for _ in range(STUCK_STEPS) for w in monitor.update(groups, {"grad_norm": 0.1})]
        assert found == expected


@pytest.mark.parametrize("kind", CAUSES)
def test_run_ends_after_ten_steps_in_a_row_without_learning(kind: str) -> None:
    monitor = StuckMonitor(64)
    for groups in [CAUSES[kind]] * (STUCK_STEPS - 1) + [batch()] + [CAUSES[kind]] * (STUCK_STEPS - 1):
        monitor.update(groups, {})
        assert monitor.reason_to_stop("always") is None
    monitor.update(CAUSES[kind], {})
    assert monitor.reason_to_stop("always")
    assert monitor.reason_to_stop("never") is None
    assert bool(monitor.reason_to_stop("nothing_scored")) == (kind == "nothing_scored")


OTHER = batch(task="image_captioning")


@pytest.mark.parametrize(
    ("groups", "kind", "words"),
    [
        (batch((0.0, 0.0), status="error"), "nothing_scored", "no well-formed completion was scored (status: error)"),
        (batch(finish_reason="length"), "all_cut_off", "cut off at rollout.max_tokens=64"),
        (
            batch((0.0, 0.0), status="unparseable", formatted=0.0),
            "format_never_right",
            "no completion has the expected",
        ),
        (batch((1.0, 1.0)), "constant_reward", "every completion has the reward 1; check that the reward depends"),
    ],
)
def test_task_that_teaches_nothing_beside_one_that_does_is_named_once_after_ten_batches(
    groups: list[SampleGroup], kind: str, words: str
) -> None:
    assert warnings_of([[*groups, *OTHER]] * (STUCK_STEPS - 1), grad_norm=0.1) == []
    (warning,) = warnings_of([[*groups, *OTHER], OTHER] * 2 * STUCK_STEPS, grad_norm=0.1)
    assert warning.kind == kind
    assert warning.message.startswith("vqa: in the last 10 batches with this task, ")
    assert words in warning.message
    monitor = StuckMonitor(64)
    for _ in range(2 * STUCK_STEPS):
        monitor.update([*groups, *OTHER], {})
    assert monitor.reason_to_stop("always") is None


@pytest.mark.parametrize(
    "groups",
    [
        [batch((2.0, 2.0))],
        [batch((1.0, 1.0)), batch((1.5, 1.5))],
        [[*batch((1.0, 1.0)), *batch((2.0, 2.0))]],
        [*([batch((1.0, 1.0))] * (STUCK_STEPS - 1)), batch((1.0, 1.5))],
    ],
)
def test_task_whose_groups_tie_but_whose_rewards_differ_or_are_full_raises_no_warning(
    groups: list[list[SampleGroup]],
) -> None:
    assert warnings_of([[*own, *OTHER] for own in groups * 30], grad_norm=0.1) == []


def test_cause_of_the_whole_batch_is_not_repeated_for_its_task() -> None:
    assert [w.kind for w in warnings_of([batch(status="timeout")] * 3 * STUCK_STEPS)] == ["nothing_scored"]
    both = [*batch((1.0, 1.0)), *batch((1.0, 1.0), task="image_captioning")]
    assert [w.kind for w in warnings_of([both] * 3 * STUCK_STEPS)] == ["no_variance"]
