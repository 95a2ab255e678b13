"""Constant-answer baselines: rewards of a policy that ignores the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.interfaces import RewardPool
from geovlm_ray.core.schema import Example, Prompt, Rotated, Sample, SampleGroup
from geovlm_ray.data.answers import answer_text
from geovlm_ray.data.sampler import Stream
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.grammar import written_response

TRAINING_EXAMPLES = 100
CANDIDATES = 50


@dataclass(frozen=True)
class ConstantAnswer:
    """An answer and its total reward on each held-out example of the task."""

    answer: str
    rewards: list[float]


def best_constant_answers(
    rewards: RewardPool, stream: Stream, held_out: Sequence[Example], config: RewardConfig
) -> dict[str, ConstantAnswer]:
    """The best constant answer of every task in the held-out examples.

    Selected on the task's first 100 training examples among their 50 most frequent reference answers, then scored on
    the held-out examples.
    """
    constants = {}
    for task, examples in _by_task(held_out).items():
        training = _training_examples(stream, task)
        candidates = [answer for answer, _ in _answer_counts(training, config.rotated).most_common(CANDIDATES)] or [""]
        means = np.mean(_scores(rewards, training, candidates, config), axis=0)
        constants[task] = _constant(rewards, examples, candidates[int(means.argmax())], config)
    return constants


def majority_classes(
    rewards: RewardPool, stream: Stream, held_out: Sequence[Example], config: RewardConfig
) -> dict[str, ConstantAnswer]:
    """The most frequent reference answer of every class or VQA task in the held-out examples.

    Counted on the task's first 100 training examples, then scored on the held-out examples. Tasks without a usable
    reference answer are omitted.
    """
    majorities = {}
    for task, examples in _by_task(held_out).items():
        if TASKS[task].target_kind in ("classes", "vqa"):
            for answer, _ in _answer_counts(_training_examples(stream, task), rotated="auto").most_common(1):
                majorities[task] = _constant(rewards, examples, answer, config)
    return majorities


def _by_task(held_out: Sequence[Example]) -> dict[str, list[Example]]:
    tasks = dict.fromkeys(example.task for example in held_out)
    return {task: [example for example in held_out if example.task == task] for task in tasks}


def _training_examples(stream: Stream, task: str) -> list[Example]:
    n = min(TRAINING_EXAMPLES, stream.count(task) or TRAINING_EXAMPLES)
    return [stream.of_task(task, k) for k in range(n)]


def _answer_counts(examples: Sequence[Example], rotated: Rotated) -> Counter[str]:
    counts: Counter[str] = Counter()
    for example in examples:
        # Training reports examples without a usable target.
        with suppress(DataError):
            counts[answer_text(example, rotated=rotated)] += 1
    return counts


def _constant(rewards: RewardPool, examples: Sequence[Example], answer: str, config: RewardConfig) -> ConstantAnswer:
    return ConstantAnswer(answer, [row[0] for row in _scores(rewards, examples, [answer], config)])


def _scores(
    rewards: RewardPool, examples: Sequence[Example], answers: Sequence[str], config: RewardConfig
) -> list[tuple[float, ...]]:
    """Total reward of every answer on every example, [examples][answers]; a confidence, if it is wanted, is a half."""
    reasoning = None if config.think == "none" else ""
    confidence = None if config.confidence == "none" else 0.5
    responses = [written_response(answer, reasoning, confidence) for answer in answers]
    samples = tuple(Sample((), (), response, "stop", 0) for response in responses)
    groups = [SampleGroup(Prompt(i, example), samples) for i, example in enumerate(examples)]
    return [group.rewards for group in rewards.score(groups)]
