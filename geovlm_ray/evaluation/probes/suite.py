"""Probe suite: every strategy under every reward, compared with the honest baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.probes.answers import Item
from geovlm_ray.evaluation.probes.honest import honest
from geovlm_ray.evaluation.probes.strategies import PROBES, Probe
from geovlm_ray.rewards import Embedder, RewardConfig, score_batch
from geovlm_ray.tasks.answers.grammar import written_response

GAMED_SHARE = 0.6
"""A strategy games a reward if it earns at least this share of the honest baseline."""


@dataclass(frozen=True)
class Cell:
    """Mean accuracy reward of a strategy and of the honest baseline on the same ``n`` references."""

    value: float
    honest: float
    n: int
    judged: bool

    @property
    def gamed(self) -> bool:
        """Whether the strategy games the reward, judged or not."""
        return self.value >= GAMED_SHARE * self.honest > 0


@dataclass(frozen=True)
class ProbeResult:
    """One reward: its form, the honest baseline over all its references, and a cell per applicable strategy."""

    reward: str
    honest: float
    cells: dict[str, Cell]

    @property
    def gamed_by(self) -> list[str]:
        """The judged strategies that game the reward."""
        return [name for name, cell in self.cells.items() if cell.judged and cell.gamed]


def run_probes(examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None) -> list[ProbeResult]:
    """Probe every reward that scores an example under the configuration, in the order of the examples."""
    items: defaultdict[str, list[Item]] = defaultdict(list)
    pools: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        pools[example.task].append(example)
    for example in examples:
        reward_items = items[config.form(example.task)]
        reward_items.append(Item(example, len(reward_items), pools[example.task]))
    return [_probe_reward(reward, reward_items, config, embedder) for reward, reward_items in items.items()]


def _probe_reward(reward: str, items: list[Item], config: RewardConfig, embedder: Embedder | None) -> ProbeResult:
    baseline = _accuracies([honest(i) for i in items], items, Probe("honest", honest), config, embedder)
    cells = {}
    for probe in PROBES:
        answers = {k: answer for k, item in enumerate(items) if (answer := probe.answer(item)) is not None}
        if answers:
            values = _accuracies([*answers.values()], [items[k] for k in answers], probe, config, embedder)
            mean, honest_mean = float(values.mean()), float(baseline[list(answers)].mean())
            cells[probe.name] = Cell(mean, honest_mean, len(answers), probe.judged)
    return ProbeResult(reward, float(baseline.mean()), cells)


def _accuracies(
    answers: list[str], items: list[Item], probe: Probe, config: RewardConfig, embedder: Embedder | None
) -> np.ndarray:
    """Accuracy rewards in [0, 1], float64 [n], apart from stated confidence."""
    reasoning = None if config.think == "none" else probe.think
    confidence = None if config.confidence == "none" else 0.5
    responses = [written_response(answer, reasoning, confidence) for answer in answers]
    return np.array([s.accuracy for s in score_batch(responses, [i.example for i in items], config, embedder)])
