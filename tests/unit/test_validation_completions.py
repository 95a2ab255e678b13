"""Validation rewards: paired changes, the constant-answer baseline and the most common answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.config import Config
from geovlm_ray.core.schema import Example
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.evaluation.constant_answers import ConstantAnswer, best_constant_answers
from geovlm_ray.evaluation.validation import read_completions, summarise, write_completions
from geovlm_ray.rewards.local import LocalRewards

CONSTANT = ConstantAnswer("no", [1.0, 1.0, 1.5])


def rows(rewards: list[float], answers: str = "abc", task: str = "vqa") -> list[dict[str, Any]]:
    return [
        {"mode": mode, "task": task, "id": str(i), "response": f"<think></think><answer>{a}</answer>", "reward": reward}
        for mode in ("sampled", "greedy")
        for i, (reward, a) in enumerate(zip(rewards, answers, strict=True))
    ]


def test_change_is_paired_by_example() -> None:
    result = summarise(rows([1.0, 1.2, 2.0]), rows([1.1, 1.3, 2.1]), {"vqa": CONSTANT})
    change = result["greedy"]["change"]
    assert change["mean"] == pytest.approx(0.1)
    assert change["se"] == pytest.approx(0, abs=1e-9), "every example changes by the same amount"
    assert result["per_task"]["vqa"]["sampled"]["change"]["n"] == 3
    assert result["sampled"]["before"]["se"] > 0.2


def test_summary_contains_the_constant_answer_baseline() -> None:
    result = summarise(rows([1.0, 1.0, 1.0]), rows([1.0, 1.0, 1.0]), {"vqa": CONSTANT})
    assert result["constant"]["vqa"] == {
        "answer": "no",
        "mean": pytest.approx(3.5 / 3),
        "se": pytest.approx(1 / 6),
        "n": 3,
    }
    assert result["constant"]["all"]["mean"] == pytest.approx(3.5 / 3)


def test_most_common_answer_is_computed_after_training() -> None:
    result = summarise(rows([1.0] * 3, "abc"), rows([1.0] * 3, "xxy"), {"vqa": CONSTANT})
    assert result["most_common"]["vqa"] == {"answer": "x", "share": pytest.approx(2 / 3)}


def test_completions_round_trip_through_jsonl(tmp_path: Path) -> None:
    written = rows([1.0, 1.25, 2.0], "aé\n")
    write_completions(written, tmp_path / "heldout_before.jsonl")
    assert read_completions(tmp_path / "heldout_before.jsonl") == written


class BinaryStream(SceneStream):
    """Five training examples per task, four of them with the target yes; rejects any index beyond them."""

    def count(self, task: str) -> int:
        return 5

    def of_task(self, task: str, k: int) -> Example:
        assert k < self.count(task)
        return Example(f"{task}-{k}", task, ("scene:",), "?", "no" if k == 2 else "yes")


def test_best_constant_answer_is_chosen_on_training_examples(demo: Config) -> None:
    held_out = [Example(str(i), "vqa", ("scene:",), "?", answer) for i, answer in enumerate(["yes", "no", "no"])]
    result = best_constant_answers(LocalRewards(demo.reward), BinaryStream(0), held_out, "required")
    assert result == {"vqa": ConstantAnswer("yes", [2.0, 1.0, 1.0])}


@pytest.mark.parametrize("task", ["object_detection", "multilabel_classification"])
def test_constant_answer_baseline_of_synthetic_scenes_is_in_range(task: str, demo: Config) -> None:
    held_out = SceneStream(0).held_out([task], 50)
    result = best_constant_answers(LocalRewards(demo.reward), SceneStream(0), held_out, "required")[task]
    assert len(result.rewards) == 50
    assert 1.1 < np.mean(result.rewards) < 1.5, result.answer


def test_constant_answers_have_no_reasoning_with_think_none(demo: Config) -> None:
    rewards = LocalRewards(demo.reward.model_copy(update={"think": "none"}))
    held_out = [Example("0", "vqa", ("scene:",), "?", "yes")]
    assert best_constant_answers(rewards, BinaryStream(0), held_out, "none")["vqa"].rewards == [2.0]
