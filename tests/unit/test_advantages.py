"""Advantages equal the formulas of their papers; completions without a score and filtered groups take no part."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest

from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.advantages import AdvantageSettings, advantages, in_accuracy_range, is_tied
from geovlm_ray.learner.batch_advantages import batch_advantages, overlong_penalty
from geovlm_ray.learner.config import LearnerConfig

REWARDS = {0: [0.0, 1.0, 2.0, 1.5], 1: [1.0, 1.0, 2.0, 0.2], 2: [0.5, 0.5, 0.5, 0.5]}


def group(
    rewards: list[float], *, group_id: int = 0, lengths: list[int] | None = None, formats: list[float] | None = None
) -> SampleGroup:
    """A group with total rewards; the accuracy is the total minus the format, at most 1."""
    samples = [
        Sample((1,) * n, (-1.0,) * n, "", "stop", 0, RewardScore(r, f, min(r - f, 1.0)))
        for r, n, f in zip(rewards, lengths or [2] * len(rewards), formats or [0.0] * len(rewards), strict=True)
    ]
    return SampleGroup(Prompt(group_id, scene_example("vqa", 0, group_id)), tuple(samples))


def with_status(original: SampleGroup, index: int, status: str, finish_reason: str = "stop") -> SampleGroup:
    samples = list(original.samples)
    assert samples[index].reward is not None
    reward = dataclasses.replace(samples[index].reward, status=status)
    samples[index] = dataclasses.replace(samples[index], reward=reward, finish_reason=finish_reason)
    return dataclasses.replace(original, samples=tuple(samples))


GROUPS = [group(rewards, group_id=i) for i, rewards in REWARDS.items()]


def found(**settings: object) -> dict[int, list[float]]:
    values = advantages(GROUPS, AdvantageSettings(**settings))  # type: ignore[arg-type]
    return {group_id: row.tolist() for group_id, row in values.items()}


def close(actual: dict[int, list[float]], expected: dict[int, list[float]]) -> bool:
    return all(actual[i] == pytest.approx(expected[i], abs=1e-5) for i in expected)


def test_grpo_divides_by_the_sample_standard_deviation_of_the_group() -> None:
    expected = {
        i: [(r - statistics.mean(rs)) / statistics.stdev(rs) for r in rs] for i, rs in REWARDS.items() if i != 2
    } | {2: [0.0] * 4}
    assert close(found(), expected)


def test_dr_grpo_only_centres() -> None:
    assert close(found(scale="none"), {i: [r - statistics.mean(rs) for r in rs] for i, rs in REWARDS.items()})


def test_rloo_leaves_the_completion_out() -> None:
    expected = {i: [r - statistics.mean(rs[:k] + rs[k + 1 :]) for k, r in enumerate(rs)] for i, rs in REWARDS.items()}
    assert close(found(center="leave_one_out", scale="none"), expected)


def test_reinforce_plus_plus_normalises_over_the_batch() -> None:
    every = [r for rs in REWARDS.values() for r in rs]
    mean, deviation = statistics.mean(every), statistics.stdev(every)
    expected = {i: [(r - mean) / deviation for r in rs] for i, rs in REWARDS.items()}
    assert close(found(center="batch", scale="batch"), expected)


def test_reinforce_plus_plus_baseline_centres_by_group_and_scales_by_batch() -> None:
    centred = {i: [r - statistics.mean(rs) for r in rs] for i, rs in REWARDS.items()}
    deviation = statistics.stdev([v for row in centred.values() for v in row])
    assert close(found(scale="batch"), {i: [v / deviation for v in row] for i, row in centred.items()})


def test_uncentred_rewards_are_themselves() -> None:
    assert close(found(center="none", scale="none"), REWARDS)


def test_gdpo_normalises_format_and_accuracy_separately() -> None:
    formats = {0: [1.0, 0.0, 1.0, 1.0], 1: [1.0, 1.0, 1.0, 0.0]}
    accuracies = {0: [0.2, 0.0, 0.8, 0.2], 1: [0.5, 0.5, 0.9, 0.0]}

    def normal(values: list[float]) -> list[float]:
        return [(v - statistics.mean(values)) / statistics.stdev(values) for v in values]

    sums = {i: [f + a for f, a in zip(normal(formats[i]), normal(accuracies[i]), strict=True)] for i in formats}
    deviation = statistics.stdev([v for row in sums.values() for v in row])
    groups = [
        group([f + a for f, a in zip(formats[i], accuracies[i], strict=True)], group_id=i, formats=formats[i])
        for i in formats
    ]
    values = advantages(groups, AdvantageSettings(per_reward=True))
    assert close(
        {i: row.tolist() for i, row in values.items()}, {i: [v / deviation for v in row] for i, row in sums.items()}
    )


@pytest.mark.parametrize("status", ["error", "timeout", "invalid_record"])
@pytest.mark.parametrize("center", ["group", "leave_one_out", "batch"])
def test_completions_without_a_score_do_not_shift_their_group(status: str, center: str) -> None:
    settings = AdvantageSettings(center, "none")  # type: ignore[arg-type]
    without = advantages([group([1.0, 2.0, 1.5])], settings)[0]
    values = advantages([with_status(group([1.0, 0.0, 2.0, 1.5]), 1, status)], settings)[0]
    assert values[1] == 0
    assert np.delete(values, 1) == pytest.approx(without)


def test_unparseable_and_too_long_completions_count() -> None:
    for status in ("unparseable", "too_long"):
        values = advantages([with_status(group([1.0, 0.0, 2.0]), 1, status)], AdvantageSettings())[0]
        assert values[1] < 0


def test_a_group_without_any_score_has_no_advantages() -> None:
    lost = group([1.0, 2.0])
    for index in range(2):
        lost = with_status(lost, index, "error")
    values = advantages([lost, group([0.0, 1.0], group_id=1)], AdvantageSettings("none", "none"))
    assert values[0].tolist() == [0, 0]
    assert values[1].tolist() == [0, 1]


def test_truncated_completions_take_no_part_if_they_are_masked() -> None:
    cut = with_status(group([1.0, 0.0, 2.0]), 1, "ok", finish_reason="length")
    assert advantages([cut], AdvantageSettings(scale="none"))[0].tolist() == [0, -1, 1]
    assert advantages([cut], AdvantageSettings(scale="none", mask_truncated=True))[0].tolist() == [-0.5, 0, 0.5]


def test_groups_outside_the_accuracy_range_have_no_advantages() -> None:
    easy, hard, middle = group([0.9, 1.0]), group([0.0, 0.1], group_id=1), group([0.2, 0.8], group_id=2)
    settings = LearnerConfig(group_accuracy=(0.1, 0.9)).advantages
    values = advantages([easy, hard, middle], settings)
    assert [bool(values[i].any()) for i in range(3)] == [False, False, True]
    assert [in_accuracy_range(g, settings) for g in (easy, hard, middle)] == [False, False, True]
    assert not any(is_tied(g, settings) for g in (easy, hard, middle))


def test_ties_ignore_completions_without_a_score() -> None:
    assert is_tied(group([1.0, 1.0]), AdvantageSettings())
    assert is_tied(with_status(group([1.0, 0.0, 1.0]), 1, "error"), AdvantageSettings())
    assert not is_tied(group([1.0, 0.0, 1.0]), AdvantageSettings())


def test_overlong_penalty_grows_linearly_within_the_buffer() -> None:
    assert overlong_penalty(np.array([1, 60, 70, 80, 90, 100]), 100, 40).tolist() == [0, 0, -0.25, -0.5, -0.75, -1]
    config = LearnerConfig(objective="dr_grpo", overlong_buffer=40)
    values = batch_advantages([group([1.0, 1.0], lengths=[20, 80])], config, 100)
    assert values[0].tolist() == [0.25, -0.25]


def test_kl_penalty_of_the_reward_is_subtracted_before_centring() -> None:
    config = LearnerConfig(objective="dr_grpo", kl_beta=0.5, kl_in="reward")
    values = batch_advantages([group([1.0, 1.0])], config, 100, {0: np.array([2.0, 0.0])})
    assert values[0].tolist() == [-0.5, 0.5]
