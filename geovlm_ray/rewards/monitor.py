"""Online detection of reward hacking from per-task answer statistics.

Typical symptoms are more labels or boxes per answer, longer or repetitive answers, and identical answers to different
prompts. Each is a metric of every batch; the monitor warns if one drifts away from its expected value while the reward
rises.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example, SampleGroup, target_boxes, target_texts
from geovlm_ray.rewards.captions import distinct_bigrams
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.class_answers import class_reader
from geovlm_ray.tasks.answers.grammar import ThinkMode, parse_response

MIN_REWARD_RISE = 0.05
"""Increase of the mean reward from which it counts as rising."""
RUNAWAY_FACTOR = 1.5
"""Growth of a statistic (or decrease of ``distinct``) from which it counts as a runaway."""
EXPECTED_REPETITION = 0.1
"""Repetition of ordinary text."""


@dataclass(frozen=True)
class AnswerStats:
    """Answer statistics of one task in one batch.

    ``reward`` is the mean total reward; ``values`` are means over the well-formed answers; ``expected`` are the values
    of the reference answers. Statistics: ``labels`` and ``boxes`` (number per answer), ``length`` (words per answer),
    ``repetition`` (fraction of repeated word bigrams), ``distinct`` (distinct answers / answers).
    """

    reward: float
    values: dict[str, float]
    expected: dict[str, float]


def answer_stats(groups: Sequence[SampleGroup], think: ThinkMode) -> dict[str, AnswerStats]:
    """Answer statistics of a scored batch by task; tasks without a well-formed answer are omitted.

    Raises:
        ValueError: A sample has not been scored.
    """
    answers: defaultdict[str, list[tuple[str, Example]]] = defaultdict(list)
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for group in groups:
        example = group.prompt.example
        rewards[example.task].extend(group.rewards)
        parsed = (parse_response(sample.text, think) for sample in group.samples)
        answers[example.task].extend((p.answer, example) for p in parsed if p is not None)
    return {task: _stats(float(np.mean(rewards[task])), task, pairs) for task, pairs in answers.items() if pairs}


class HackingMonitor:
    """Compares the latest ``window`` batches of each task with the first ``window`` batches."""

    def __init__(self, think: ThinkMode = "required", window: int = 10) -> None:
        self.think = think
        self.window = window
        self._first: defaultdict[str, list[AnswerStats]] = defaultdict(list)
        self._latest: defaultdict[str, deque[AnswerStats]] = defaultdict(lambda: deque(maxlen=window))
        self._runaways: set[tuple[str, str]] = set()

    def update(self, groups: Sequence[SampleGroup]) -> tuple[dict[str, float], list[str]]:
        """Metrics ``answers/TASK/STATISTIC`` of a scored batch, and a warning for each new runaway statistic."""
        metrics: dict[str, float] = {}
        warnings: list[str] = []
        for task, stats in answer_stats(groups, self.think).items():
            metrics |= {f"answers/{task}/{name}": value for name, value in stats.values.items()}
            if len(self._first[task]) < self.window:
                self._first[task].append(stats)
                continue
            self._latest[task].append(stats)
            if len(self._latest[task]) == self.window:
                warnings += self._warnings(task, _mean(self._first[task]), _mean(self._latest[task]))
        return metrics, warnings

    def _warnings(self, task: str, first: AnswerStats, latest: AnswerStats) -> list[str]:
        current = {(task, name) for name in runaways(first, latest)}
        new = sorted(current - self._runaways)
        self._runaways = {key for key in self._runaways if key[0] != task} | current
        return [
            f"{task}: the reward rose from {first.reward:.2f} to {latest.reward:.2f} while {name} went from "
            f"{first.values[name]:.2f} to {latest.values[name]:.2f} (expected: {latest.expected[name]:.2f})"
            for _, name in new
        ]


def runaways(first: AnswerStats, latest: AnswerStats) -> list[str]:
    """Names of the statistics that ran away between two mean statistics; empty if the reward did not rise."""
    if latest.reward < first.reward + MIN_REWARD_RISE:
        return []

    def ran_away(name: str) -> bool:
        now, normal = latest.values[name], (first.values[name], latest.expected[name])
        return RUNAWAY_FACTOR * now < min(normal) if name == "distinct" else now > RUNAWAY_FACTOR * max(normal)

    return [name for name in latest.values if ran_away(name)]


def _stats(reward: float, task: str, pairs: Sequence[tuple[str, Example]]) -> AnswerStats:
    words = [answer.casefold().split() for answer, _ in pairs]
    values = {
        "length": _average(map(len, words)),
        "repetition": _average(1 - distinct_bigrams(w) for w in words),
        "distinct": len(set(map(tuple, words))) / len(words),
    }
    expected = {
        "length": _average(_target_words(e) for _, e in pairs),
        "repetition": EXPECTED_REPETITION,
        "distinct": len({e.target for _, e in pairs}) / len(pairs),
    }
    kind = TASKS[task].target_kind
    if kind == "classes":
        values["labels"] = _average(len(class_reader(e).keys(answer)) for answer, e in pairs)
        expected["labels"] = _average(len(target_texts(e.target)) for _, e in pairs)
    elif kind in ("boxes", "grounded"):
        parsed = [read_boxes(answer, e.dialect) for answer, e in pairs]
        values["boxes"] = _average(p.count if p else 0 for p in parsed)
        expected["boxes"] = _average(len(target_boxes(e.target)) for _, e in pairs)
    return AnswerStats(reward, values, expected)


def _target_words(example: Example) -> float:
    """Length of the target as an answer, in words: mean over captions; each box coordinate counts as a word."""
    texts = target_texts(example.target)
    words = len(" ".join(texts).split()) + sum(len(box.coords) for box in target_boxes(example.target))
    return _average(len(text.split()) for text in texts) if TASKS[example.task].target_kind == "captions" else words


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean(batches: Iterable[AnswerStats]) -> AnswerStats:
    stats = list(batches)
    values, expected = (
        {name: _average(getattr(s, field)[name] for s in stats) for name in stats[0].values}
        for field in ("values", "expected")
    )
    return AnswerStats(_average(s.reward for s in stats), values, expected)
