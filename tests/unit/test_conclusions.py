"""Sentences of a report: what changed, where the policy fails, whether an answer dominates."""

from __future__ import annotations

from typing import Any

import pytest

from geovlm_ray.report.conclusions import conclusions, progress
from geovlm_ray.report.held_out import ALL, Estimate, HeldOutResult, TaskAnswers


def result(
    task: str, before: float, after: float, se: float, *, constant: float = 1.0, decoding: str = "greedy"
) -> HeldOutResult:
    means = (Estimate(before, 0.05, 100), Estimate(after, 0.05, 100))
    return HeldOutResult(task, decoding, constant, None, *means, Estimate(after - before, se, 100))


def answers(**values: Any) -> TaskAnswers:
    return TaskAnswers(**{"task": "vqa", "best_constant": "yes", "majority": "yes", "most_common": "yes", **values})


BALANCED = answers(share=0.55, n=100, share_before=0.5, reference_share=0.5)


def sentences(greedy: HeldOutResult, *tasks: HeldOutResult, sampled: HeldOutResult | None = None) -> list[str]:
    overall = sampled or result(ALL, 1.5, 1.5, 0.01, decoding="sampled")
    return conclusions([overall, greedy, *tasks], [BALANCED], 0, 2.0)


def test_a_rise_of_three_standard_errors_is_stated_with_its_interval() -> None:
    first, *_ = sentences(result(ALL, 1.5, 1.66, 0.05), result("vqa", 1.5, 1.66, 0.05))
    assert first == (
        "On 100 held-out examples, the greedy reward (at most 2) rose from 1.500 to 1.660, by +0.160 [+0.062, +0.258] "
        "(3.2 standard errors). The sampled reward shows no measurable change: +0.000 [-0.020, +0.020] "
        "(0.0 standard errors)."
    )


@pytest.mark.parametrize(("after", "se"), [(1.5, 0.0), (1.645, 0.05), (1.355, 0.05)])
def test_less_than_three_standard_errors_is_no_measurable_change(after: float, se: float) -> None:
    first, *_ = sentences(result(ALL, 1.5, after, se), result("vqa", 1.5, after, se))
    assert f"the greedy reward (at most 2) shows no measurable change: 1.500 before, {after:.3f} after" in first
    assert "rose" not in first
    assert "fell" not in first


def test_a_fall_and_a_change_without_any_spread_are_measurable() -> None:
    sampled = result(ALL, 1.0, 1.25, 0.0, decoding="sampled")
    first, *_ = sentences(result(ALL, 1.5, 1.0, 0.1), result("vqa", 1.5, 1.0, 0.1), sampled=sampled)
    assert "fell from 1.500 to 1.000, by -0.500" in first
    assert "The sampled reward rose by +0.250 [+0.250, +0.250] (more than 100 standard errors)" in first


def test_tasks_that_gained_and_lost_most_are_named_with_reservations() -> None:
    tasks = (result("vqa", 1.5, 1.4, 0.1), result("object_detection", 1.2, 1.6, 0.1), result("other", 1.5, 1.6, 0.1))
    second = sentences(result(ALL, 1.4, 1.5, 0.05), *tasks)[1]
    assert second.startswith(
        "By task, object_detection gained most, +0.400 [+0.204, +0.596] and vqa lost most, -0.100 [-0.296, +0.096] "
        "(not measurable)."
    )


def test_tasks_without_any_change_neither_gained_nor_lost() -> None:
    tasks = (result("vqa", 1.5, 1.5, 0.0), result("object_detection", 1.2, 1.2, 0.0))
    assert sentences(result(ALL, 1.35, 1.35, 0.0), *tasks)[1].startswith("No task changed. The lowest reward is that")


def test_the_weakest_task_and_tasks_not_above_a_constant_answer_are_named() -> None:
    tasks = (result("vqa", 1.3, 1.3, 0.1, constant=1.3), result("object_detection", 1.1, 1.2, 0.1, constant=1.1))
    second = sentences(result(ALL, 1.2, 1.25, 0.05), *tasks)[1]
    assert "The lowest reward is that of object_detection, 1.200, 60% of the maximum" in second
    assert second.endswith("not above the best constant answer: vqa (1.300 against 1.300).")
    single = sentences(result(ALL, 1.5, 1.6, 0.1), result("vqa", 1.5, 1.6, 0.1))[1]
    assert single == (
        "The lowest reward is that of vqa, 1.600, 80% of the maximum; every task is above its best constant answer."
    )


@pytest.mark.parametrize(
    ("share", "reference_share", "n", "dominates"),
    [
        (0.55, 0.5, 10_000, False),
        (0.8, 0.5, 1000, True),
        (0.8, 0.5, 8, False),
        (0.9, 0.7, 1000, True),
        (0.8, 0.7, 1000, False),
        (0.09, 0.001, 1000, False),
        (0.2, 0.001, 1000, True),
        (1.0, 1.0, 1000, False),
        (1.0, None, 1000, False),
    ],
)
def test_an_answer_dominates_if_it_is_far_more_frequent_than_references(
    share: float, reference_share: float | None, n: int, dominates: bool
) -> None:
    assert answers(share=share, n=n, share_before=0.1, reference_share=reference_share).dominates == dominates


def test_gaming_is_named_with_the_answer_its_shares_and_the_warnings() -> None:
    results = [result(ALL, 1.5, 1.5, 0.1), result(ALL, 1.5, 1.5, 0.1, decoding="sampled"), result("vqa", 1.5, 1.5, 0.1)]
    constant = answers(most_common="yes " * 50, share=0.9, n=100, share_before=0.5, reference_share=0.5)
    last = conclusions(results, [constant], 2, 2.0)[-1]
    assert last.startswith("Check for a gamed reward: in vqa, “yes yes")
    assert "...” is 90% of the greedy answers (50% before training; most frequent reference 50%)" in last
    assert last.endswith("; the run gave 2 warnings, listed below.")
    assert conclusions(results, [BALANCED], 0, 2.0)[-1] == (
        "No greedy answer is far more frequent than the reference answers, and the run gave no warnings."
    )
    assert conclusions(results, [BALANCED], 1, 2.0)[-1].endswith("; the run gave 1 warning, listed below.")
    old = answers(share=0.9, n=100)
    assert conclusions(results, [old], 0, 2.0)[-1].startswith("Whether an answer dominates is unknown")


def test_an_unfinished_run_compares_its_first_and_last_steps() -> None:
    rows = [{"step": k, "reward/mean": 1.0 if k <= 10 else 1.5} for k in range(1, 31)]
    assert progress(rows, 1, 2.0)[1:] == [
        "The mean sampled reward was 1.000 in the first 10 steps and 1.500 in the last 10 steps, of at most 2; these "
        "are different prompts.",
        "The run gave 1 warning, listed below.",
    ]
    assert len(progress(rows[:1], 0, 2.0)) == len(progress([], 0, 2.0)) == 1
