"""The algorithm on one screen: draw, score, admit, learn, broadcast.

Its components are protocols (`core.interfaces`): `actors` implements them with Ray, `training.local` in one process,
and the same loop runs on both. On-policy is ``max_staleness=0``, pipelined is 1, asynchronous is more.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from geovlm_ray.config import Config
from geovlm_ray.core.errors import LostError, RunError, UserError
from geovlm_ray.core.interfaces import TRAINED, Components, Evaluator, Prompts
from geovlm_ray.core.interrupts import Interrupted, uninterrupted
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.training.admission import admit
from geovlm_ray.training.batch_metrics import batch_metrics

log = logging.getLogger(__name__)


def train(config: Config, components: Components, prompts: Prompts, probe: list[Prompt], start: int) -> float:
    """Run learner steps ``start`` to ``config.run.steps``.

    Returns the largest log-prob difference between engines and learner that any sync showed.

    What was learnt is kept where a step fails or the run is interrupted.

    Raises:
        RunError: engines and learner disagree, or every group of a batch was too stale to train on.
        LostError: a part died that the others cannot replace.
        Interrupted: a signal asked for the end.
    """
    # One thread scores the batches, in order, while this one trains.
    scorer = ThreadPoolExecutor(1)
    kept = Kept(start, start, start, {})
    try:
        return _steps(config, components, prompts, probe, kept, scorer)
    except LostError:
        raise
    except (UserError, Interrupted):
        _keep(components, kept)
        raise
    finally:
        scorer.shutdown(wait=False, cancel_futures=True)


@dataclass
class Kept:
    """Steps that were learnt, written down with their metrics, and saved."""

    learnt: int
    logged: int
    saved: int
    metrics: dict[str, float]


def _keep(components: Components, kept: Kept) -> None:
    """Save what was learnt, unless that is saved; a step that is not written down is done again."""
    try:
        if kept.learnt == kept.logged > kept.saved:
            components.checkpoints.save(kept.logged, components.learner, kept.metrics)
        components.checkpoints.finish()
    except UserError as error:
        log.warning("%s", error)


def _steps(
    config: Config,
    components: Components,
    prompts: Prompts,
    probe: list[Prompt],
    kept: Kept,
    scorer: ThreadPoolExecutor,
) -> float:
    worst = 0.0
    ahead: deque[Future[list[SampleGroup]]] = deque()
    with HEARTBEAT.busy("sync"):
        probed = broadcast(config, components, probe)
    evaluate(components.evaluator, kept.saved)
    for step in HEARTBEAT.steps(kept.saved, config.run.steps):
        clock = Clock()
        while step + len(ahead) < min(step + 1 + config.loop.max_staleness, config.run.steps):
            drawing = components.rollouts.submit(prompts.batch(step + len(ahead)))
            ahead.append(scorer.submit(components.rewards.score_stream, drawing))
        with clock("parity"):
            parity = disagreement(config, components, probed)
        worst = max(worst, parity)
        with clock("rollout"):
            scored = ahead.popleft().result()
        with clock("resample"):
            scored, replaced = resample(config, components, prompts, scored)
        groups_by_status = admit(scored, version=step, max_staleness=config.loop.max_staleness) | {
            "resampled": replaced
        }
        if not groups_by_status[TRAINED]:
            raise RunError(f"step {step + 1}: none of {len(scored)} groups could be trained on: all are too stale")
        with uninterrupted():
            with clock("learner"):
                learned = components.learner.step(groups_by_status[TRAINED])
                kept.learnt = step + 1
            with clock("sync"):
                probed = broadcast(config, components, probe)
            evaluated = evaluate(components.evaluator, step + 1)
            metrics = {**batch_metrics(scored, step), **learned, "parity/max_abs": parity}
            metrics |= {f"groups/{status}": float(len(groups)) for status, groups in groups_by_status.items()}
            metrics |= clock.metrics(metrics) | (components.evaluator.results() if components.evaluator else {})
            with HEARTBEAT.busy("records"):
                components.tracker.log_step(step + 1, metrics, groups_by_status)
            kept.logged, kept.metrics = step + 1, metrics
            if (step + 1) % config.checkpoint.every == 0 or step + 1 == config.run.steps or evaluated:
                with HEARTBEAT.busy("checkpoint"):
                    components.checkpoints.save(step + 1, components.learner, metrics)
                kept.saved = step + 1
    components.checkpoints.finish()
    if components.evaluator:
        with HEARTBEAT.busy("evaluation"):
            components.evaluator.finish()
    return max(worst, disagreement(config, components, probed))


def evaluate(evaluator: Evaluator | None, step: int) -> bool:
    """Begin to evaluate the weights after a step where that is due; returns whether it is."""
    if evaluator is None or not evaluator.due(step):
        return False
    evaluator.begin(step)
    return True


def resample(
    config: Config, components: Components, prompts: Prompts, scored: list[SampleGroup]
) -> tuple[list[SampleGroup], list[SampleGroup]]:
    """Replace groups without reward variance by groups of other prompts of their task, at most `loop.resample` times.

    Returns the batch with as many groups as before, and the groups that were replaced (DAPO's dynamic sampling,
    Yu et al., arXiv 2503.14476, with a bound).
    """
    replaced: list[SampleGroup] = []
    for attempt in range(1, config.loop.resample + 1):
        flat = [group for group in scored if len(set(group.rewards)) == 1]
        if not flat:
            break
        other = {group.group_id: prompts.replacement(group.prompt, attempt) for group in flat}
        drawn = components.rewards.score(components.rollouts.generate(list(other.values())))
        found = {group.group_id: group for group in drawn}
        replaced += flat
        scored = [found[other[g.group_id].group_id] if g.group_id in other else g for g in scored]
    return scored, replaced


def broadcast(config: Config, components: Components, probe: list[Prompt]) -> list[list[SampleGroup]]:
    """Send the learner's weights to every engine; returns what each then draws for a probe batch with images."""
    components.rollouts.update_weights(components.learner.weights())
    return components.rollouts.probe(probe, config.sync.parity_tokens)


def disagreement(config: Config, components: Components, probed: list[list[SampleGroup]]) -> float:
    """The largest absolute difference of a token's log-prob between an engine's probe and the learner.

    The learner must still have the weights that it last sent; the engines may draw something else meanwhile.

    Raises:
        RunError: it exceeds ``sync.parity_tolerance``.
    """
    worst = 0.0
    for engine, groups in enumerate(probed):
        learner = np.concatenate(components.learner.logprobs(groups))
        sampler = np.concatenate([s.logprobs for g in groups for s in g.samples])
        difference = float(np.abs(learner - sampler).max())
        if not difference <= config.sync.parity_tolerance:
            raise RunError(
                f"engine {engine} and learner disagree after the weight sync: a token's log-prob differs by "
                f"{difference:.3g}, expected at most sync.parity_tolerance={config.sync.parity_tolerance:g}"
            )
        worst = max(worst, difference)
    return worst


class Clock:
    """Seconds of the named components of one step."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Any:
        """Time a part."""
        begun = time.perf_counter()
        with HEARTBEAT.busy(part):
            yield
        self.seconds[part] = time.perf_counter() - begun

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """Seconds of every part and of the step (``rollout``: waited for scored completions), and tokens per second."""
        total = time.perf_counter() - self.started
        return {
            **{f"seconds/{part}": value for part, value in self.seconds.items()},
            "seconds/step": total,
            "throughput/learner_tokens_per_s": counts["learner/tokens"] / max(self.seconds["learner"], 1e-9),
            "throughput/tokens_per_s": counts["rollout/tokens"] / total,
        }
