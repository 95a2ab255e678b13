"""Answers of a model to the cases of a benchmark, drawn by the rollout engines and scored as they come."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.evaluation.cases import Cases
from geovlm_ray.evaluation.predictions import Predictions, prediction_row

IN_FLIGHT = 2
"""Batches at the engines: the next one is there before the last completions of one are drawn."""


def generate_predictions(
    cases: Cases,
    predictions: Predictions,
    rollouts: RolloutPool,
    rewards: RewardPool,
    batch: int,
    on_progress: Callable[[int], None],
    prefills: Mapping[int, str] | None = None,
) -> None:
    """Draw one greedy completion of every case that has none yet, and keep them as they come.

    Args:
        batch: cases that are sent to the engines together.
        on_progress: is told how many cases have a prediction.
        prefills: how the completions begin, by the place of the case; others are then not drawn.
    """
    done = predictions.drawn()
    waiting = [place for place in (range(len(cases)) if prefills is None else prefills) if place not in done]
    batches = (waiting[i : i + batch] for i in range(0, len(waiting), batch))
    running: deque[Iterable[list[SampleGroup]]] = deque()
    have = len(done)
    try:
        while True:
            while len(running) < IN_FLIGHT and (places := next(batches, None)):
                prompts = [Prompt(p, cases[p].example, prefills[p] if prefills else "") for p in places]
                running.append(rollouts.submit(prompts, group_size=1, greedy=True))
            if not running:
                break
            for groups in running.popleft():
                scored = rewards.score(list(map(_whole, groups)))
                predictions.add([prediction_row(g.group_id, cases[g.group_id], g.samples[0]) for g in scored])
                have += len(scored)
                on_progress(have)
    finally:
        predictions.flush()
    predictions.finish()


def _whole(group: SampleGroup) -> SampleGroup:
    """The group with the beginnings of its completions."""
    if not group.prompt.prefill:
        return group
    samples = (dataclasses.replace(s, text=group.prompt.prefill + s.text) for s in group.samples)
    return dataclasses.replace(group, samples=tuple(samples))
