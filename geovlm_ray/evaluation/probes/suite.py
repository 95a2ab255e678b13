"""The probe suite: every strategy against every reward, beside the honest baseline."""

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

GAMED = 0.6
"""A reward that gives a degenerate strategy this share of the honest baseline or more is gamed."""


@dataclass(frozen=True)
class Cell:
    """Mean accuracy part of a strategy and of the honest baseline on the same ``n`` references."""

    value: float
    honest: float
    n: int
    judged: bool

    @property
    def gamed(self) -> bool:
        """Whether the reward pays for the strategy, be it judged or only shown."""
        return self.value >= GAMED * self.honest > 0


@dataclass(frozen=True)
class ProbeResult:
    """One reward: its form, the honest baseline over all its references, and a cell per strategy that applies."""

    reward: str
    honest: float
    cells: dict[str, Cell]

    @property
    def broken(self) -> list[str]:
        """The judged strategies that game it."""
        return [name for name, cell in self.cells.items() if cell.judged and cell.gamed]


def run_probes(examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None) -> list[ProbeResult]:
    """A row for each reward that scores any of the examples under a configuration, in the order of the examples."""
    items: defaultdict[str, list[Item]] = defaultdict(list)
    pools: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        pools[example.task].append(example)
    for example in examples:
        of_reward = items[config.form(example.task)]
        of_reward.append(Item(example, len(of_reward), pools[example.task]))
    return [_row(reward, of_reward, config, embedder) for reward, of_reward in items.items()]


def _row(reward: str, items: list[Item], config: RewardConfig, embedder: Embedder | None) -> ProbeResult:
    baseline = _accuracies([honest(i) for i in items], items, Probe("honest", honest), config, embedder)
    cells = {}
    for probe in PROBES:
        answers = [(k, probe.answer(item)) for k, item in enumerate(items)]
        given = [(k, answer) for k, answer in answers if answer is not None]
        if given:
            places = [k for k, _ in given]
            values = _accuracies([a for _, a in given], [items[k] for k in places], probe, config, embedder)
            cells[probe.name] = Cell(float(values.mean()), float(baseline[places].mean()), len(given), probe.judged)
    return ProbeResult(reward, float(baseline.mean()), cells)


def _accuracies(
    answers: list[str], items: list[Item], probe: Probe, config: RewardConfig, embedder: Embedder | None
) -> np.ndarray:
    """Accuracy parts, float64 [n]."""
    think = "" if config.think == "none" else f"<think>{probe.think}</think>"
    responses = [f"{think}<answer>{answer}</answer>" for answer in answers]
    return np.array([s.accuracy for s in score_batch(responses, [i.example for i in items], config, embedder)])
