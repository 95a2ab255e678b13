"""Generate predictions for a benchmark with the rollout engines, and score them as they complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.bad_records import BadRecord
from geovlm_ray.evaluation.confidence import Tokenizer
from geovlm_ray.evaluation.examples import BenchmarkExamples
from geovlm_ray.evaluation.predictions import Predictions

IN_FLIGHT = 2
"""Batches submitted at once, so that engines do not idle at the end of a batch."""


def generate_predictions(
    examples: BenchmarkExamples,
    predictions: Predictions,
    rollouts: RolloutPool,
    rewards: RewardPool,
    batch: int,
    on_progress: Callable[[int], None],
    prefills: Mapping[int, str] | None = None,
    max_bad: float = 0.0,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Generate one greedy completion for every example without a prediction, and write them as they complete.

    ``on_progress`` receives the number of examples with a prediction. ``prefills`` are the beginnings of completions by
    index of the example; if given, only these examples are generated. Examples that cannot be shown or scored have no
    prediction. With ``tokenizer``, predictions have a confidence.

    Raises:
        DataError: More than the fraction ``max_bad`` of the examples cannot be shown or scored.
    """
    bad = predictions.bad_records(len(examples), max_bad)
    done = predictions.written_places()
    pending = [place for place in (range(len(examples)) if prefills is None else prefills) if place not in done]
    if bad:
        pending = [place for place in pending if BadRecord.of(examples[place].example, "").origin not in bad]
    batches = (pending[i : i + batch] for i in range(0, len(pending), batch))
    running: deque[Iterable[list[SampleGroup]]] = deque()
    completed = len(done)
    try:
        while True:
            while len(running) < IN_FLIGHT and (places := next(batches, None)):
                prompts = [Prompt(p, examples[p].example, prefills[p] if prefills else "") for p in places]
                running.append(rollouts.submit(prompts, group_size=1, greedy=True))
            if not running:
                break
            for groups in running.popleft():
                scored = rewards.score(groups)
                predictions.add_groups({g.group_id: g for g in scored}, examples, bad, tokenizer)
                completed += len(scored)
                on_progress(completed)
    finally:
        predictions.flush()
    predictions.finish()
