"""Interleaved measurements, and equal work for both sides of `benchmarks.versus_trl`."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.common import at_least, in_turns, ratio_figures
from benchmarks.versus_ours import Steps, TextRewards, check_lengths, text_reward
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Example, Prompt, Sample, SampleGroup
from geovlm_ray.rewards.local import LocalRewards


def group(*texts: str, tokens: int = 3) -> SampleGroup:
    example = Example("0", "scene_classification", (), "", ("forest",))
    samples = tuple(Sample(tuple(range(tokens)), (0.0,) * tokens, text, "length", 0) for text in texts)
    return SampleGroup(Prompt(0, example), samples)


def test_measurements_are_interleaved_in_every_round():
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    measured = in_turns({"a": partial(measure, "a"), "b": partial(measure, "b")}, rounds=3)
    assert calls == ["a", "b"] * 3
    assert measured == {"a": [1.0, 3.0, 5.0], "b": [2.0, 4.0, 6.0]}


def test_ratios_are_paired_and_only_the_median_has_a_limit():
    median, least, largest = ratio_figures("r", [2.0, 9.0, 8.0], [1.0, 3.0, 2.0], partial(at_least, limit=3.5))
    assert (median.value, least.value, largest.value) == (3.0, 2.0, 4.0)
    assert (median.holds, least.holds, largest.holds) == (False, None, None)


def test_different_texts_get_different_rewards():
    rewards = TextRewards(LocalRewards(load_config("demo").reward))
    first, second = rewards.score([group("no answer", "none either")])[0].rewards
    assert first != second
    assert (first, second) == (text_reward("no answer"), text_reward("none either"))


def test_completion_that_ended_early_is_rejected():
    check_lengths([3, 3], 3)
    with pytest.raises(RuntimeError, match="expected completions of 3 tokens, found 2 to 3"):
        check_lengths([3, 2], 3)


def test_step_with_untrained_tokens_is_rejected():
    steps = Steps(tokens=3)
    steps.log_step(1, {"learner/tokens": 6.0}, {"trained": [group("a", "b")]})
    assert steps.samples == 2
    with pytest.raises(RuntimeError, match="step 2: generated 6 tokens, trained on 0"):
        steps.log_step(2, {"learner/tokens": 0.0}, {"trained": [group("a", "b")]})
