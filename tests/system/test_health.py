"""Warnings about batches that teach nothing or the wrong thing; batches of a learning policy raise none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.answers import answer_text
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.observability.run_recorder import RunRecorder, TrainingWarning
from geovlm_ray.training.health import (
    HealthMonitor,
    constant_answer_warnings,
    settings_warnings,
)

PROMPTS = 16
Answer = Callable[[Example, np.random.Generator], str]


def batch(
    task: str,
    step: int,
    answer: Answer,
    *,
    seed: int = 0,
    rewards: Sequence[float] = (0.0, 2.0),
    status: str = "ok",
    finish_reason: str = "stop",
) -> list[SampleGroup]:
    """Groups of different examples of a task, with answers drawn by ``answer``."""
    rng = np.random.default_rng([seed, step])
    groups = []
    for i in range(step * PROMPTS, (step + 1) * PROMPTS):
        example = scene_example(task, seed, i)
        samples = [
            Sample(
                (1,),
                (-0.5,),
                f"<think></think><answer>{answer(example, rng)}</answer>",
                finish_reason,
                0,
                RewardScore(reward, 1.0, reward / 2, status=status),
            )
            for reward in rewards
        ]
        groups.append(SampleGroup(Prompt(i, example), tuple(samples)))
    return groups


def learning(example: Example, rng: np.random.Generator) -> str:
    """Right in 60% of cases; otherwise the answer to another example."""
    if rng.random() < 0.6:
        return answer_text(example)
    return answer_text(scene_example(example.task, 1, int(rng.integers(10_000))))


def warnings_of(batches: Sequence[list[SampleGroup]]) -> list[TrainingWarning]:
    monitor = HealthMonitor("required", 64)
    return [warning for groups in batches for warning in monitor.update(groups, {})[1]]


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_learning_policy_raises_no_warning_for_ten_seeds(task: str) -> None:
    for seed in range(10):
        assert warnings_of([batch(task, step, learning, seed=seed) for step in range(15)]) == []


@pytest.mark.parametrize(
    ("task", "constant"),
    [
        ("object_detection", "[[17, 17, 77, 77]]"),
        ("vqa", "yes"),
        ("multilabel_classification", "water"),
        ("image_captioning", "an image"),
        ("change_captioning", "a building was built"),
    ],
)
def test_collapse_to_a_constant_answer_is_reported_once(task: str, constant: str) -> None:
    def mostly(example: Example, rng: np.random.Generator) -> str:
        return constant if rng.random() < 0.8 else learning(example, rng)

    healthy = [batch(task, step, learning) for step in range(10)]
    collapsed = [batch(task, step, mostly) for step in range(10, 30)]
    (warning,) = warnings_of([*healthy, *collapsed])
    assert warning.kind == "dominant_answer"
    assert f"{task}: " in warning.message
    assert repr(constant) in warning.message
    assert "fine-tuned longer" in warning.message


def test_an_answer_that_is_mostly_right_may_dominate() -> None:
    def always(example: Example, rng: np.random.Generator) -> str:
        return "no change"

    examples = [scene_example("temporal_classification", 0, i) for i in range(2000)]
    unchanged = [e for e in examples if e.target == ("no change",)][:200]
    sample = Sample((1,), (-0.5,), "<think></think><answer>no change</answer>", "stop", 0, RewardScore(2.0, 1.0, 1.0))
    other = Sample((1,), (-0.5,), "<answer>", "stop", 0, RewardScore(0.0, 0.0, 0.0))
    groups = [SampleGroup(Prompt(i, e), (sample, other)) for i, e in enumerate(unchanged)]
    assert warnings_of([groups]) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["learner.objective=gspo"], "set learner.old_logprobs=learner"),
        (["learner.kl_beta=0.1", "learner.kl_estimator=k1"], "expected gradient is 0"),
        (["learner.objective=gspo", "learner.old_logprobs=learner"], ""),
        (["learner.kl_beta=0.1", "learner.kl_estimator=k1", "learner.kl_in=reward"], ""),
        ([], ""),
    ],
)
def test_settings_that_are_rarely_meant_are_reported(overrides: list[str], words: str) -> None:
    found = settings_warnings(load_config("demo", overrides))
    assert len(found) == bool(words)
    assert words in "".join(warning.message for warning in found)


def test_task_that_is_not_above_its_best_constant_answer_is_reported() -> None:
    rng = np.random.default_rng(0)
    constants = {task: ConstantAnswer("yes", list(rng.uniform(1, 1.4, 60))) for task in ("vqa", "object_detection")}
    rows = [
        {"mode": mode, "task": task, "id": str(i), "response": "", "reward": reward}
        for mode in ("sampled", "greedy")
        for task, gain in (("vqa", 0.0), ("object_detection", 0.3))
        for i, reward in enumerate(np.array(constants[task].rewards) + gain + rng.normal(0, 0.3, 60))
    ]
    (warning,) = constant_answer_warnings(rows, constants, "after training")
    assert warning.kind == "constant_answer"
    assert warning.message.startswith("vqa: the greedy reward after training, 1.")
    assert "'yes'" in warning.message


def test_warnings_are_recorded_and_rewound(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    recorder = RunRecorder(tmp_path, 3, console, HealthMonitor("required", 64), lambda groups: {})
    recorder.rewind(0)
    recorder.warn(1, [TrainingWarning("all_cut_off", "first")])
    recorder.warn(2, [TrainingWarning("no_variance", "second")])
    recorder.rewind(1)
    rows = [json.loads(line) for line in (tmp_path / "warnings.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "kind": "all_cut_off", "message": "first"}]
    assert "Warning, step 2: second" in console.export_text()
    recorder.warn(0, [TrainingWarning("settings", "of the start")])
    recorder.rewind(0)
    recorder.close()
    assert (tmp_path / "warnings.jsonl").read_text() == ""


def test_unwritable_warnings_are_an_error(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, 3, Console(quiet=True), HealthMonitor("required", 64), lambda groups: {})
    recorder.rewind(0)
    (tmp_path / "warnings.jsonl").unlink()
    (tmp_path / "warnings.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"warnings.jsonl cannot be written: No space left"):
        recorder.warn(1, [TrainingWarning("all_cut_off", "first")])
    recorder.close()
