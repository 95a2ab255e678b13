"""Validation rewards: paired changes, the constant-answer baselines and the most common answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.config import Config
from geovlm_ray.core.schema import Example, Prompt, Sample, SampleGroup
from geovlm_ray.data.sample_rows import example_columns
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.constant_answers import ConstantAnswer, best_constant_answers, majority_classes
from geovlm_ray.evaluation.validation import (
    Completion,
    completions_of,
    held_out_summary,
    read_completions,
    validation_completions,
    write_completions,
)
from geovlm_ray.rewards.local import LocalRewards

CONSTANT = ConstantAnswer("no", [1.0, 1.0, 1.5])


def rows(rewards: list[float], answers: str = "abc", task: str = "vqa") -> list[dict[str, Any]]:
    return [
        {"mode": mode, "task": task, "id": str(i), "response": f"<think></think><answer>{a}</answer>", "reward": reward}
        for mode in ("sampled", "greedy")
        for i, (reward, a) in enumerate(zip(rewards, answers, strict=True))
    ]


def test_change_is_paired_by_example() -> None:
    result = held_out_summary(rows([1.0, 1.2, 2.0]), rows([1.1, 1.3, 2.1]), {"vqa": CONSTANT})
    change = result["greedy"]["change"]
    assert change["mean"] == pytest.approx(0.1)
    assert change["se"] == pytest.approx(0, abs=1e-9), "every example changes by the same amount"
    assert change["interval"] == pytest.approx((0.1, 0.1))
    assert result["per_task"]["vqa"]["sampled"]["change"]["n"] == 3
    assert result["sampled"]["before"]["se"] > 0.2


def test_summary_contains_the_constant_answer_baseline() -> None:
    result = held_out_summary(rows([1.0, 1.0, 1.0]), rows([1.0, 1.0, 1.0]), {"vqa": CONSTANT})
    assert result["constant"]["vqa"] == {
        "answer": "no",
        "mean": pytest.approx(3.5 / 3),
        "se": pytest.approx(1 / 6),
        "n": 3,
    }
    assert result["constant"]["all"]["mean"] == pytest.approx(3.5 / 3)
    assert result["majority"] == {}
    with_majority = held_out_summary(rows([1.0] * 3), rows([1.0] * 3), {"vqa": CONSTANT}, majorities={"vqa": CONSTANT})
    assert with_majority["majority"] == {"vqa": with_majority["constant"]["vqa"]}


def test_interval_is_1_96_standard_errors_of_the_paired_change() -> None:
    change = held_out_summary(rows([1.0, 1.0, 1.0]), rows([1.0, 1.5, 2.0]), {"vqa": CONSTANT})["greedy"]["change"]
    se = 0.5 / np.sqrt(3)
    assert change["interval"] == pytest.approx((0.5 - 1.96 * se, 0.5 + 1.96 * se))
    single = held_out_summary(rows([1.0], "a"), rows([2.0], "a"), {"vqa": ConstantAnswer("no", [1.0])})
    assert single["greedy"]["change"]["interval"] is None


def test_most_common_answer_is_that_after_training_with_its_share_before() -> None:
    result = held_out_summary(rows([1.0] * 3, "abx"), rows([1.0] * 3, "xxy"), {"vqa": CONSTANT})
    assert result["most_common"]["vqa"] == {
        **{"answer": "x", "share": pytest.approx(2 / 3)},
        **{"share_before": pytest.approx(1 / 3), "reference_share": None},
    }


class Constant:
    """Engines whose every completion has the same answer."""

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        sample = Sample((1,), (-0.1,), "<think></think><answer>yes</answer>", "stop", 0)
        return [SampleGroup(prompt, (sample,)) for prompt in prompts]


def completions(engines: Constant, demo: Config, prompts: Sequence[Prompt]) -> list[Completion]:
    rewards = LocalRewards(demo.reward)
    return validation_completions(engines, rewards, prompts, SceneStream(0).set_aside)  # type: ignore[arg-type]


def test_completions_have_the_columns_of_their_examples(demo: Config) -> None:
    examples = [scene_example("vqa", 0, k) for k in range(8)]
    prompts = [Prompt(k, example) for k, example in enumerate(examples)]
    found = completions(Constant(), demo, prompts)
    assert [(row["mode"], row["id"]) for row in found] == [(m, e.id) for m in ("sampled", "greedy") for e in examples]
    for row, example in zip(found[:8], examples, strict=True):
        columns = example_columns(example)
        assert row["id"] == columns.pop("example_id")
        assert columns.items() <= row.items()
        assert row["reward"] == (2.0 if example.target == "yes" else 1.0)
    common = held_out_summary(found, found, {"vqa": ConstantAnswer("yes", [1.0] * 8)})["most_common"]["vqa"]
    targets = Counter(example.target for example in examples)
    assert (common["share"], common["reference_share"]) == (1.0, max(targets.values()) / 8)


def test_example_that_cannot_be_shown_in_one_mode_is_set_aside_in_both(demo: Config) -> None:
    class Blind(Constant):
        def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
            groups = super().generate(prompts)
            return [SampleGroup(groups[0].prompt, (), "no image"), *groups[1:]] if sampling["greedy"] else groups

    examples = [scene_example("vqa", 0, k) for k in range(3)]
    prompts = [Prompt(k, example) for k, example in enumerate(examples)]
    bad: list[tuple[Example, str]] = []
    found = validation_completions(
        Blind(),  # type: ignore[arg-type]
        LocalRewards(demo.reward),
        prompts,
        lambda example, reason: bad.append((example, reason)),
    )
    assert bad == [(examples[0], "no image")]
    assert [(row["mode"], row["id"]) for row in found] == [
        (m, e.id) for m in ("sampled", "greedy") for e in examples[1:]
    ]


def test_completions_from_before_training_are_reduced_to_the_examples_that_are_left(demo: Config) -> None:
    examples = [scene_example("vqa", 0, k) for k in range(4)]
    found = completions(Constant(), demo, [Prompt(k, example) for k, example in enumerate(examples)])
    left = completions_of(found, [examples[0], examples[2]])
    assert [row["id"] for row in left] == [examples[0].id, examples[2].id] * 2
    assert completions_of(found, examples) == found


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
        answer = "no" if k == 2 else "yes"
        return Example(f"{task}-{k}", task, ("scene:",), "?", answer if task == "vqa" else (answer,))


def test_best_constant_answer_is_chosen_on_training_examples(demo: Config) -> None:
    held_out = [Example(str(i), "vqa", ("scene:",), "?", answer) for i, answer in enumerate(["yes", "no", "no"])]
    result = best_constant_answers(LocalRewards(demo.reward), BinaryStream(0), held_out, demo.reward)
    assert result == {"vqa": ConstantAnswer("yes", [2.0, 1.0, 1.0])}


def test_majority_class_is_the_most_frequent_training_answer_of_class_and_vqa_tasks(demo: Config) -> None:
    held_out = [
        Example(str(i), task, ("scene:",), "?", target)
        for task, targets in {"vqa": ["yes", "no"], "scene_classification": [("yes",), ("no",)]}.items()
        for i, target in enumerate(targets)
    ]
    boxes = SceneStream(0).held_out(["object_detection"], 2)
    result = majority_classes(LocalRewards(demo.reward), BinaryStream(0), [*held_out, *boxes], demo.reward)
    expected = ConstantAnswer("yes", [2.0, 1.0])
    assert result == {"vqa": expected, "scene_classification": expected}


@pytest.mark.parametrize("task", ["object_detection", "multilabel_classification"])
def test_constant_answer_baseline_of_synthetic_scenes_is_in_range(task: str, demo: Config) -> None:
    held_out = SceneStream(0).held_out([task], 50)
    result = best_constant_answers(LocalRewards(demo.reward), SceneStream(0), held_out, demo.reward)[task]
    assert len(result.rewards) == 50
    assert 1.1 < np.mean(result.rewards) < 1.5, result.answer


def test_constant_answers_have_no_reasoning_with_think_none(demo: Config) -> None:
    rewards = LocalRewards(demo.reward.model_copy(update={"think": "none"}))
    held_out = [Example("0", "vqa", ("scene:",), "?", "yes")]
    assert best_constant_answers(rewards, BinaryStream(0), held_out, rewards.config)["vqa"].rewards == [2.0]
