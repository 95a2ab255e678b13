"""Paired bootstrap and Holm correction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geovlm_ray.evaluation.comparison.paired import holm, paired_bootstrap

DRAWS = 1000


def test_equal_scores_have_no_difference() -> None:
    scores = np.random.default_rng(0).random(50)
    found = paired_bootstrap(scores, scores, DRAWS)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p) == (0, 0, 0, 1)


def test_small_shift_is_detected_despite_variance_between_records() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(0, 1, 400)
    found = paired_bootstrap(first, first + 0.05 + rng.normal(0, 0.1, 400), DRAWS)
    assert found.difference.low > 0.03
    assert found.difference.high < 0.07
    assert found.p < 0.01
    assert found.other - found.first == pytest.approx(found.difference.value)


@pytest.mark.parametrize("differ", [40, 5])
def test_swapping_the_two_only_flips_signs(differ: int) -> None:
    rng = np.random.default_rng(2)
    first = rng.random(40)
    other = np.where(np.arange(40) < differ, rng.random(40), first)
    forward, backward = paired_bootstrap(first, other, DRAWS), paired_bootstrap(other, first, DRAWS)
    assert backward.p == forward.p
    assert (backward.first, backward.other) == (forward.other, forward.first)
    ends = (forward.difference.value, forward.difference.low, forward.difference.high)
    assert (-backward.difference.value, -backward.difference.high, -backward.difference.low) == pytest.approx(
        ends, abs=1e-12
    )


def normal(rng: np.random.Generator, shift: float) -> np.ndarray:
    return rng.normal(shift, 0.3, 60)


def skewed(rng: np.random.Generator, shift: float) -> np.ndarray:
    return rng.exponential(0.3, 60) - 0.3 + shift


def right_or_wrong(rng: np.random.Generator, shift: float) -> np.ndarray:
    return rng.choice([-1.0, 0.0, 1.0], 60, p=[0.2 - shift / 2, 0.6, 0.2 + shift / 2])


@pytest.mark.parametrize("changes", [normal, skewed, right_or_wrong])
def test_interval_coverage_and_false_positive_rate_are_nominal(
    changes: Callable[[np.random.Generator, float], np.ndarray],
) -> None:
    rng = np.random.default_rng(3)
    level = rng.random(60)
    shifted = [paired_bootstrap(level, level + changes(rng, 0.1), DRAWS) for _ in range(400)]
    coverage = np.mean([found.difference.low <= 0.1 <= found.difference.high for found in shifted])
    assert 0.90 <= coverage <= 0.98
    same = [paired_bootstrap(level, level + changes(rng, 0.0), DRAWS).p for _ in range(400)]
    assert 0.02 <= np.mean(np.array(same) < 0.05) <= 0.09
    assert 0.05 <= np.mean(np.array(same) < 0.1) <= 0.15


@pytest.mark.parametrize(("n", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625)])
def test_p_value_has_a_lower_bound_for_few_records(n: int, least: float) -> None:
    assert paired_bootstrap(np.zeros(n), np.ones(n), DRAWS).p == least
    assert paired_bootstrap(np.zeros(100), (np.arange(100) < n).astype(float), DRAWS).p >= least


def test_differences_that_cancel_out_are_not_significant() -> None:
    first = np.array([0.1, 0.2, 0.3, 0.4] * 5)
    assert paired_bootstrap(first, first + np.array([0.1, -0.1] * 10), DRAWS).p == 1


def test_bootstrap_in_blocks_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    first, other = rng.random(300), rng.random(300)
    expected = paired_bootstrap(first, other, 250)
    monkeypatch.setattr("geovlm_ray.evaluation.comparison.paired.MAX_VALUES_IN_MEMORY", 1000)
    assert paired_bootstrap(first, other, 250) == expected


@pytest.mark.parametrize("shapes", [(3, 4), (0, 0)])
def test_unpaired_or_empty_scores_are_rejected(shapes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected two arrays of the same n > 0 records"):
        paired_bootstrap(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_p_values_get_the_holm_correction() -> None:
    # By hand: 4 x 0.01; 3 x 0.02; 2 x 0.03, raised to the previous value; 0.5.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
