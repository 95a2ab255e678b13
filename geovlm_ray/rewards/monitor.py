"""The online monitor of reward hacking: what answers look like, per task, while the reward rises.

A policy that games its reward gives itself away: it names more classes, draws more boxes, writes more words or the
same ones again, or gives the same answer to everything. Each of these is a metric of every batch; where one runs
away while the reward rises, there is a warning.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Box, Example, GroundedText, SampleGroup
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes
from geovlm_ray.tasks.grammar import ThinkMode, parse_response
from geovlm_ray.tasks.labels import parse_labels

RISE = 0.05
"""The reward has risen where its mean grew by this much."""
FACTOR = 1.5
"""A sign has run away where it grew, or the rate of distinct answers fell, by this factor."""
REPETITION = 0.1
"""Repetition below this is usual in any text."""


@dataclass(frozen=True)
class Signs:
    """One task in one batch.

    ``reward`` is the mean total; ``values`` are means over the well-formed answers, ``usual`` what the truth itself
    would have. Names: ``labels`` and ``boxes`` (how many an answer offers), ``length`` (words of an answer),
    ``repetition`` (share of an answer's word pairs that stood in it before), ``distinct`` (different answers over all).
    """

    reward: float
    values: dict[str, float]
    usual: dict[str, float]


def batch_signs(groups: Sequence[SampleGroup], think: ThinkMode) -> dict[str, Signs]:
    """The signs of each task of a scored batch; a task without a well-formed answer is left out.

    Raises:
        ValueError: a sample has not been scored.
    """
    answers: defaultdict[str, list[tuple[str, Example]]] = defaultdict(list)
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for group in groups:
        example = group.prompt.example
        rewards[example.task].extend(group.rewards)
        parsed = (parse_response(sample.text, think) for sample in group.samples)
        answers[example.task].extend((p.answer, example) for p in parsed if p is not None)
    return {task: _signs(float(np.mean(rewards[task])), task, given) for task, given in answers.items() if given}


class HackingMonitor:
    """Compares the latest ``window`` batches of each task with the first ones that it saw."""

    def __init__(self, think: ThinkMode = "required", window: int = 10) -> None:
        self.think = think
        self.window = window
        self._first: defaultdict[str, list[Signs]] = defaultdict(list)
        self._latest: defaultdict[str, deque[Signs]] = defaultdict(lambda: deque(maxlen=window))
        self._running: set[tuple[str, str]] = set()

    def update(self, groups: Sequence[SampleGroup]) -> tuple[dict[str, float], list[str]]:
        """Metrics ``answers/TASK/SIGN`` of a scored batch, and a warning for each sign that now began to run away."""
        metrics: dict[str, float] = {}
        warnings: list[str] = []
        for task, signs in batch_signs(groups, self.think).items():
            metrics |= {f"answers/{task}/{name}": value for name, value in signs.values.items()}
            if len(self._first[task]) < self.window:
                self._first[task].append(signs)
                continue
            self._latest[task].append(signs)
            if len(self._latest[task]) == self.window:
                warnings += self._warnings(task, _mean(self._first[task]), _mean(self._latest[task]))
        return metrics, warnings

    def _warnings(self, task: str, first: Signs, latest: Signs) -> list[str]:
        running = {(task, name) for name in runaways(first, latest)}
        new = sorted(running - self._running)
        self._running = {known for known in self._running if known[0] != task} | running
        return [
            f"{task}: the reward rose from {first.reward:.2f} to {latest.reward:.2f} while {name} went from "
            f"{first.values[name]:.2f} to {latest.values[name]:.2f} (usual: {latest.usual[name]:.2f})"
            for _, name in new
        ]


def runaways(first: Signs, latest: Signs) -> list[str]:
    """The signs that ran away between two means while the reward rose."""
    if latest.reward < first.reward + RISE:
        return []
    return [name for name in latest.values if _runs_away(name, first, latest)]


def _runs_away(name: str, first: Signs, latest: Signs) -> bool:
    before, now, usual = first.values[name], latest.values[name], latest.usual[name]
    return FACTOR * now < min(before, usual) if name == "distinct" else now > FACTOR * max(before, usual)


def _signs(reward: float, task: str, given: Sequence[tuple[str, Example]]) -> Signs:
    words = [answer.casefold().split() for answer, _ in given]
    values = {
        "length": _average(map(len, words)),
        "repetition": _average(map(_repetition, words)),
        "distinct": len(set(map(tuple, words))) / len(words),
    }
    usual = {
        "length": _average(_true_words(e) for _, e in given),
        "repetition": REPETITION,
        "distinct": len({e.target for _, e in given}) / len(given),
    }
    kind = TASKS[task].target_kind
    if kind == "classes":
        values["labels"] = _average(len(parse_labels(a, _names(e), e.labels, repeats=True)) for a, e in given)
        usual["labels"] = _average(len(_names(e)) for _, e in given)
    elif kind in ("boxes", "grounded"):
        found = [parse_boxes(answer, e.dialect) for answer, e in given]
        values["boxes"] = _average(f.count if f else 0 for f in found)
        usual["boxes"] = _average(len(_true_boxes(e)) for _, e in given)
    return Signs(reward, values, usual)


def _true_words(example: Example) -> float:
    """Words of the answer that the target is: of one reference, or four numbers a box."""
    if TASKS[example.task].target_kind == "captions":
        return _average(len(reference.split()) for reference in _names(example))
    target = example.target
    text = target.text if isinstance(target, GroundedText) else target if isinstance(target, str) else ""
    return len(" ".join((text, *_names(example))).split()) + sum(len(b.coords) for b in _true_boxes(example))


def _names(example: Example) -> tuple[str, ...]:
    """The strings of a target that is a list of them."""
    return tuple(t for t in example.target if isinstance(t, str)) if isinstance(example.target, tuple) else ()


def _true_boxes(example: Example) -> tuple[Box, ...]:
    boxes = example.target.boxes if isinstance(example.target, GroundedText) else example.target
    return tuple(b for b in boxes if isinstance(b, Box))


def _repetition(words: Sequence[str]) -> float:
    """Share of the pairs of neighbouring words that stood before."""
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean(signs: Iterable[Signs]) -> Signs:
    every = list(signs)
    values, usual = (
        {name: _average(getattr(s, part)[name] for s in every) for name in every[0].values}
        for part in ("values", "usual")
    )
    return Signs(_average(s.reward for s in every), values, usual)
