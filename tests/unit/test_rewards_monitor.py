"""Reward-hacking monitor."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from geovlm_ray.core.schema import Example, GroundedText, Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.rewards.monitor import AnswerStats, HackingMonitor, answer_stats, runaways
from tests.unit.reward_examples import boxes, example, response


def group(record: Example, answers: Sequence[str], reward: float = 1.0) -> SampleGroup:
    """A scored group of well-formed responses; the answer "broken" becomes a malformed one."""
    score = RewardScore(reward, 1.0, reward - 1)
    samples = [Sample((), (), response(a) if a != "broken" else a, "stop", 0, score) for a in answers]
    return SampleGroup(Prompt(0, record), tuple(samples))


CLASSES = example("multilabel_classification", ("Pastures", "Vineyards"))
DETECTION = example("object_detection", boxes((1, 2, 3, 4), (5, 6, 7, 8)))
CAPTION = example("image_captioning", ("two ships on the left", "ships"))


def test_answer_stats_of_each_task() -> None:
    answers = ["Pastures, Pastures, Airports", "Beaches, dunes, sands", "broken"]
    stats = answer_stats([group(CLASSES, answers, 1.5)], "required")["multilabel_classification"]
    assert stats.reward == 1.5
    assert stats.values == {"length": 3.0, "repetition": 0.0, "distinct": 1.0, "labels": 2.0}
    assert stats.expected == {"length": 2.0, "repetition": 0.1, "distinct": 0.5, "labels": 2.0}

    stats = answer_stats([group(DETECTION, ["[1, 2, 3, 4] [5]", "none", "none", "none"])], "required")[
        "object_detection"
    ]
    assert (stats.values["boxes"], stats.expected["boxes"]) == (0.5, 2.0)
    assert stats.values["distinct"] == 0.5

    grounded = example("grounded_description", GroundedText("a ship", boxes((1, 2, 3, 4))))
    stats = answer_stats([group(grounded, ["a ship a ship [1, 2, 3, 4]"])], "required")["grounded_description"]
    assert stats.values["boxes"] == 1
    assert stats.values["repetition"] == pytest.approx(1 / 7)
    assert stats.expected["length"] == 6

    stats = answer_stats([group(CAPTION, ["Two Ships", "two  ships"])], "required")["image_captioning"]
    assert stats.values["distinct"] == 0.5
    assert stats.expected["length"] == 3


def test_answer_stats_are_per_task_and_skip_unparseable_answers() -> None:
    groups = [group(CLASSES, ["Pastures"]), group(CAPTION, ["broken"]), group(example("vqa", "yes"), ["yes"])]
    assert set(answer_stats(groups, "required")) == {"multilabel_classification", "vqa"}
    assert answer_stats([], "required") == {}


def run(monitor: HackingMonitor, record: Example, answers: Sequence[str], reward: float, steps: int) -> list[str]:
    """Warnings over several identical steps."""
    return [w for _ in range(steps) for w in monitor.update([group(record, answers, reward)])[1]]


@pytest.mark.parametrize(
    ("record", "honest", "gamed", "sign"),
    [
        (CLASSES, ["Pastures", "Vineyards"], ["Pastures, Vineyards, Airports, Estuaries", "a, b, c, d"], "labels"),
        (DETECTION, ["[1, 2, 3, 4]", "[1, 2, 3, 5]"], ["[1, 2, 3, 4]" * 9, "[5, 6, 7, 8]" * 9], "boxes"),
        (CAPTION, ["two ships", "a ship"], ["many big ships lie on the left side near a pier", "x y " * 6], "length"),
        (CAPTION, ["ships on water", "a ship"], ["ship ship ship", "a a a"], "repetition"),
        (CAPTION, ["ships on water", "a ship"], ["an image", "an image"], "distinct"),
    ],
)
def test_warns_once_when_a_sign_runs_away_while_the_reward_rises(
    record: Example, honest: list[str], gamed: list[str], sign: str
) -> None:
    if sign == "distinct":
        pair = [record, example("image_captioning", ("a forest",))]
        monitor = HackingMonitor(window=3)
        for _ in range(3):
            monitor.update([group(r, [a]) for r, a in zip(pair, honest, strict=True)])
        warnings = [
            w
            for _ in range(6)
            for w in monitor.update([group(r, [a], 1.5) for r, a in zip(pair, gamed, strict=True)])[1]
        ]
    else:
        monitor = HackingMonitor(window=3)
        assert run(monitor, record, honest, 1.0, 6) == []
        warnings = run(monitor, record, gamed, 1.5, 6)
    sign_warnings = [w for w in warnings if f" {sign} went from " in w]
    assert len(sign_warnings) == 1
    assert sign_warnings[0].startswith(f"{record.task}: the reward rose from 1.00 to 1.")


def test_no_warning_if_reward_is_flat_or_answers_approach_the_target() -> None:
    monitor = HackingMonitor(window=3)
    run(monitor, DETECTION, ["[1, 2, 3, 4]"], 1.5, 3)
    assert run(monitor, DETECTION, ["[1, 2, 3, 4]" * 9], 1.5, 6) == []
    monitor = HackingMonitor(window=3)
    run(monitor, DETECTION, ["[1, 2, 3, 4]"], 1.0, 3)
    assert run(monitor, DETECTION, ["[1, 2, 3, 4], [5, 6, 7, 8]"], 2.0, 6) == []


def test_warns_again_after_a_return_to_normal() -> None:
    monitor = HackingMonitor(window=2)
    honest, gamed = ["[1, 2, 3, 4]"], ["[1, 2, 3, 4]" * 9]
    run(monitor, DETECTION, honest, 1.0, 2)
    counts = [len(run(monitor, DETECTION, a, 1.5, 4)) for a in (gamed, honest, gamed)]
    assert counts[0] == counts[2] > 0 == counts[1]


def test_metric_names_contain_task_and_sign() -> None:
    metrics, warnings = HackingMonitor().update([group(CLASSES, ["Pastures"])])
    assert not warnings
    assert metrics == {
        "answers/multilabel_classification/length": 1.0,
        "answers/multilabel_classification/repetition": 0.0,
        "answers/multilabel_classification/distinct": 1.0,
        "answers/multilabel_classification/labels": 1.0,
    }


def test_runaways_compare_window_means() -> None:
    first = AnswerStats(1.0, {"length": 4.0, "distinct": 0.9}, {"length": 5.0, "distinct": 0.8})
    assert runaways(first, AnswerStats(1.2, {"length": 7.0, "distinct": 0.6}, first.expected)) == []
    assert runaways(first, AnswerStats(1.2, {"length": 8.0, "distinct": 0.5}, first.expected)) == ["length", "distinct"]
    assert runaways(first, AnswerStats(1.04, {"length": 80.0, "distinct": 0.1}, first.expected)) == []
