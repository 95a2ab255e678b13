"""The algorithm on one screen: draw, score, admit, learn, broadcast.

The parts are Protocols: `actors` implements them with Ray, `geovlm_ray.local` in one process, and the same
loop runs on both. On-policy is ``max_staleness=0``, pipelined is 1, asynchronous is more.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from geovlm_ray.checkpoint import Saver
from geovlm_ray.config import Config
from geovlm_ray.errors import LostError, RunError, UserError
from geovlm_ray.grpo.admission import TRAINED, Ledger, admit
from geovlm_ray.interrupts import Interrupted, uninterrupted
from geovlm_ray.metrics.training import batch_metrics
from geovlm_ray.pulse import PULSE, Span
from geovlm_ray.schema import Prompt, SampleGroup

log = logging.getLogger(__name__)


class RolloutPool(Protocol):
    """Engines that draw completions."""

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Iterable[list[SampleGroup]]:
        """Start to draw a batch with the weights that the engines now hold; its groups come as they are finished.

        ``sampling`` may hold ``group_size`` and ``greedy``; what is left out is as in training.
        """

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        """Completions of each prompt at once, outside the submitted batches."""

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        """The same short draws from every engine."""

    def update_weights(self, buckets: Iterable[Any]) -> None:
        """Hand a version of the weights to every engine; returns when all have acknowledged it."""

    def close(self) -> None:
        """End the engines."""


class RewardPool(Protocol):
    """Scorers of completions; several threads may use it at once."""

    def score_as_drawn(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        """All groups, sorted, every sample with its reward; the first are scored while the last are still drawn."""

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        """The same groups, every sample with its reward."""

    def close(self) -> None:
        """End the scorers."""


class Learner(Protocol):
    """The policy under training; it alone raises the version of the weights."""

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One update; the version rises by one."""

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of every sample's tokens under the present weights."""

    def weights(self) -> Iterable[Any]:
        """The present weights, in parts of whatever form `RolloutPool.update_weights` takes."""

    def save(self, folder: Path) -> None:
        """Begin to write model and optimizer into a folder, as they now are."""

    def saved(self) -> bool:
        """Whether that is done; raises OSError where the disk refused it."""

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""

    def close(self) -> None:
        """End the learner."""


class Prompts(Protocol):
    """Where prompts come from."""

    def batch(self, step: int) -> list[Prompt]:
        """The prompts of a step, counted from 0."""

    def replacement(self, prompt: Prompt, attempt: int) -> Prompt:
        """Another prompt of the same task."""


class Tracker(Protocol):
    """What a run writes down as it goes."""

    def log_step(self, step: int, metrics: dict[str, float], ledger: Ledger) -> None:
        """Write down one step, with all groups that were drawn for it."""


class Checkpointer(Protocol):
    """What a run can be resumed from."""

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        """Keep the state after a step with its metrics, while the next ones go on."""

    def finish(self) -> None:
        """Wait until it is kept."""


class Evaluator(Protocol):
    """Benchmarks that are drawn and measured beside the training."""

    def due(self, step: int) -> bool:
        """Whether the weights after a step are to be evaluated."""

    def begin(self, step: int) -> None:
        """Start to draw with the weights that the engines now hold, which are those after a step."""

    def results(self) -> dict[str, float]:
        """Metrics of what was measured since this was last asked."""

    def finish(self) -> None:
        """Wait for what is being measured."""


Report = Callable[[dict[str, float]], None]
"""Is told the metrics of every step."""
Timeline = Callable[[float, float], dict[str, list[Span]]]
"""The tasks of every actor, by its name, that ran between two moments, in seconds since the epoch."""


class Built(NamedTuple):
    """What differs between one process and a cluster, who there is told the metrics, and who knows what ran when."""

    rollouts: RolloutPool
    rewards: RewardPool
    learner: Learner
    report: Report | None = None
    timeline: Timeline | None = None


@dataclass(frozen=True)
class Parts:
    """Everything that the loop drives."""

    rollouts: RolloutPool
    rewards: RewardPool
    learner: Learner
    tracker: Tracker
    checkpoints: Checkpointer
    evaluator: Evaluator | None = None


def train(config: Config, parts: Parts, prompts: Prompts, probe: list[Prompt], start: int) -> float:
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
        return _steps(config, parts, prompts, probe, kept, scorer)
    except LostError:
        raise
    except (UserError, Interrupted):
        _keep(parts, kept)
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


def _keep(parts: Parts, kept: Kept) -> None:
    """Save what was learnt, unless that is saved; a step that is not written down is done again."""
    try:
        if kept.learnt == kept.logged > kept.saved:
            parts.checkpoints.save(kept.logged, parts.learner, kept.metrics)
        parts.checkpoints.finish()
    except UserError as error:
        log.warning("%s", error)


def _steps(
    config: Config, parts: Parts, prompts: Prompts, probe: list[Prompt], kept: Kept, scorer: ThreadPoolExecutor
) -> float:
    worst = 0.0
    ahead: deque[Future[list[SampleGroup]]] = deque()
    with PULSE.busy("sync"):
        probed = broadcast(config, parts, probe)
    evaluate(parts.evaluator, kept.saved)
    for step in PULSE.steps(kept.saved, config.run.steps):
        clock = Clock()
        while step + len(ahead) < min(step + 1 + config.loop.max_staleness, config.run.steps):
            drawing = parts.rollouts.submit(prompts.batch(step + len(ahead)))
            ahead.append(scorer.submit(parts.rewards.score_as_drawn, drawing))
        with clock("parity"):
            parity = disagreement(config, parts, probed)
        worst = max(worst, parity)
        with clock("rollout"):
            scored = ahead.popleft().result()
        with clock("resample"):
            scored, replaced = resample(config, parts, prompts, scored)
        ledger = admit(scored, version=step, max_staleness=config.loop.max_staleness) | {"resampled": replaced}
        if not ledger[TRAINED]:
            raise RunError(f"step {step + 1}: none of {len(scored)} groups could be trained on: all are too stale")
        with uninterrupted():
            with clock("learner"):
                learned = parts.learner.step(ledger[TRAINED])
                kept.learnt = step + 1
            with clock("sync"):
                probed = broadcast(config, parts, probe)
            evaluated = evaluate(parts.evaluator, step + 1)
            metrics = {**batch_metrics(scored, step), **learned, "parity/max_abs": parity}
            metrics |= {f"groups/{fate}": float(len(groups)) for fate, groups in ledger.items()}
            metrics |= clock.metrics(metrics) | (parts.evaluator.results() if parts.evaluator else {})
            with PULSE.busy("records"):
                parts.tracker.log_step(step + 1, metrics, ledger)
            kept.logged, kept.metrics = step + 1, metrics
            if (step + 1) % config.checkpoint.every == 0 or step + 1 == config.run.steps or evaluated:
                with PULSE.busy("checkpoint"):
                    parts.checkpoints.save(step + 1, parts.learner, metrics)
                kept.saved = step + 1
    parts.checkpoints.finish()
    if parts.evaluator:
        with PULSE.busy("evaluation"):
            parts.evaluator.finish()
    return max(worst, disagreement(config, parts, probed))


def evaluate(evaluator: Evaluator | None, step: int) -> bool:
    """Begin to evaluate the weights after a step where that is due; returns whether it is."""
    if evaluator is None or not evaluator.due(step):
        return False
    evaluator.begin(step)
    return True


def resample(
    config: Config, parts: Parts, prompts: Prompts, scored: list[SampleGroup]
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
        drawn = parts.rewards.score(parts.rollouts.generate(list(other.values())))
        found = {group.group_id: group for group in drawn}
        replaced += flat
        scored = [found[other[g.group_id].group_id] if g.group_id in other else g for g in scored]
    return scored, replaced


def broadcast(config: Config, parts: Parts, probe: list[Prompt]) -> list[list[SampleGroup]]:
    """Send the learner's weights to every engine; returns what each then draws for a probe batch with images."""
    parts.rollouts.update_weights(parts.learner.weights())
    return parts.rollouts.probe(probe, config.sync.parity_tokens)


def disagreement(config: Config, parts: Parts, probed: list[list[SampleGroup]]) -> float:
    """The largest absolute difference of a token's log-prob between an engine's probe and the learner.

    The learner must still have the weights that it last sent; the engines may draw something else meanwhile.

    Raises:
        RunError: it exceeds ``sync.parity_tolerance``.
    """
    worst = 0.0
    for engine, groups in enumerate(probed):
        learner = np.concatenate(parts.learner.logprobs(groups))
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
    """Seconds of the named parts of one step."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Any:
        """Time a part."""
        begun = time.perf_counter()
        with PULSE.busy(part):
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
