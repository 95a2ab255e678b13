"""The training loop: roll out, score, admit, update the policy, sync the weights.

The components are protocols (`core.interfaces`), implemented with Ray in `actors` and in one process in
`training.local`. ``max_staleness=0`` is on-policy, 1 is pipelined, larger values are asynchronous.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from geovlm_ray.config import Config
from geovlm_ray.core.errors import PartialStepError, RunError, StuckError, UserError
from geovlm_ray.core.interfaces import TRAINED, Components, Evaluator, Prompts
from geovlm_ray.core.interrupts import Interrupted, uninterrupted
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.learner.advantages import in_accuracy_range, is_tied
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.training.batch_metrics import batch_metrics
from geovlm_ray.training.probe_batch import ParityProbe, problems_of

log = logging.getLogger(__name__)


def train(config: Config, components: Components, prompts: Prompts, start: int) -> float:
    """Run learner steps ``start`` to ``config.run.steps``.

    Returns the largest parity error (absolute log-prob difference between engine and learner) over all weight syncs.
    When a step fails, an engine is lost or the run is interrupted, the completed steps are checkpointed, unless the
    step has changed the weights.

    Raises:
        RunError: the parity check failed, or every group of a batch was too stale to train on.
        DataError: too many records are bad (``data.max_bad``).
        StuckError: nothing was learnt for many steps (``run.stop_if_stuck``).
        LostError: a component died that cannot be replaced on its own.
        Interrupted: a signal requested the end.
    """
    # One thread scores the batches in order while the main thread trains.
    scorer = ThreadPoolExecutor(1)
    progress = LoopProgress(start, start, start, {})
    try:
        return _steps(config, components, prompts, progress, scorer)
    except PartialStepError:
        components.checkpoints.finish()
        raise
    except (UserError, Interrupted):
        _save_progress(components, progress)
        raise
    finally:
        scorer.shutdown(wait=False, cancel_futures=True)


@dataclass
class LoopProgress:
    """Number of steps that were trained, logged and checkpointed, and the metrics of the last logged step."""

    trained: int
    logged: int
    saved: int
    metrics: dict[str, float]


def _save_progress(components: Components, progress: LoopProgress) -> None:
    """Checkpoint the last step if needed; a step that was trained but not logged is repeated after resuming."""
    try:
        if progress.trained == progress.logged > progress.saved:
            components.checkpoints.save(progress.logged, components.learner, progress.metrics)
        components.checkpoints.finish()
    except UserError as error:
        log.warning("%s", error)


def _steps(
    config: Config,
    components: Components,
    prompts: Prompts,
    progress: LoopProgress,
    scorer: Executor,
) -> float:
    max_parity = 0.0
    in_flight: deque[Future[list[SampleGroup]]] = deque()
    probe = ParityProbe(config, components, prompts)
    with HEARTBEAT.busy("sync"):
        probed = sync_weights(config, components, probe, progress.saved)
    evaluate(components.evaluator, progress.saved)
    clock = Clock()
    for step in HEARTBEAT.steps(progress.saved, config.run.steps):
        with clock("rollout"):
            while step + len(in_flight) < min(step + 1 + config.loop.max_staleness, config.run.steps):
                rollout = components.rollouts.submit(prompts.batch(step + len(in_flight)))
                in_flight.append(scorer.submit(components.rewards.score_stream, rollout))
        with clock("parity"):
            parity = parity_error(config, components, probed)
        max_parity = max(max_parity, parity)
        with clock("rollout"):
            scored, bad = replace_bad(components, prompts, in_flight.popleft().result())
        with clock("resample"):
            scored, replaced = resample(config, components, prompts, scored, bad)
        groups_by_status = admit(scored, version=step, max_staleness=config.loop.max_staleness)
        groups_by_status |= {"resampled": replaced, "bad": bad}
        if not groups_by_status[TRAINED]:
            raise RunError(f"step {step + 1}: expected groups to train on, found {len(scored)} that are all too stale")
        with uninterrupted():
            with clock("learner"):
                upcoming = prompts.batch(step + 1) if step + 1 < config.run.steps else []
                if config.placement.colocate:
                    if components.evaluator:
                        components.evaluator.finish()
                    components.rollouts.sleep()
                learner_metrics = components.learner.step(groups_by_status[TRAINED], upcoming)
                progress.trained = step + 1
            with clock("sync"):
                probed = sync_weights(config, components, probe, step + 1)
            evaluating = evaluate(components.evaluator, step + 1)
            metrics = {**batch_metrics(scored, step), **learner_metrics, "parity/max_abs": parity}
            metrics |= {f"groups/{status}": float(len(groups)) for status, groups in groups_by_status.items()}
            metrics |= clock.lap(metrics) | (components.evaluator.results() if components.evaluator else {})
            with clock("records"):
                stuck = components.recorder.log_step(step + 1, metrics, groups_by_status)
            progress.logged, progress.metrics = step + 1, metrics
            if (step + 1) % config.checkpoint.every == 0 or step + 1 == config.run.steps or evaluating:
                with clock("checkpoint"):
                    components.checkpoints.save(step + 1, components.learner, metrics)
                progress.saved = step + 1
        if stuck and step + 1 < config.run.steps:
            raise StuckError(f"step {step + 1}: {stuck}. run.stop_if_stuck={config.run.stop_if_stuck} ends the run")
    components.checkpoints.finish()
    if components.evaluator:
        with HEARTBEAT.busy("evaluation"):
            components.evaluator.finish()
    return max(max_parity, parity_error(config, components, probed))


def evaluate(evaluator: Evaluator | None, step: int) -> bool:
    """Start evaluating the weights after a step if an evaluation is due; returns whether it is."""
    if evaluator is None or not evaluator.due(step):
        return False
    evaluator.begin(step)
    return True


def admit(groups: Sequence[SampleGroup], *, version: int, max_staleness: int) -> dict[str, list[SampleGroup]]:
    """Split groups by whether their oldest sample is at most ``max_staleness`` weight versions behind ``version``.

    Groups without reward variance are admitted: they have no gradient but count in the loss mean.
    """
    admitted = [g for g in groups if version - g.weight_version <= max_staleness]
    return {TRAINED: admitted, "stale": [g for g in groups if version - g.weight_version > max_staleness]}


def replace_bad(
    components: Components, prompts: Prompts, scored: list[SampleGroup]
) -> tuple[list[SampleGroup], list[SampleGroup]]:
    """Replace groups whose record cannot be shown, scored or encoded by groups of other records of the same task.

    Returns the batch, with its number of groups unchanged, and the groups that were replaced.

    Raises:
        DataError: too many records are bad.
    """
    replaced: list[SampleGroup] = []
    while problems := problems_of(components, scored):
        bad = [group for group in scored if group.group_id in problems]
        redrawn = [prompts.set_aside(group.prompt, problems[group.group_id]) for group in bad]
        by_id = {g.group_id: g for g in components.rewards.score(components.rollouts.generate(redrawn))}
        replaced += bad
        scored = [by_id.get(group.group_id, group) for group in scored]
    return scored, replaced


def resample(
    config: Config, components: Components, prompts: Prompts, scored: list[SampleGroup], bad: list[SampleGroup]
) -> tuple[list[SampleGroup], list[SampleGroup]]:
    """Replace groups with equal rewards, or outside ``learner.group_accuracy``, by other prompts of the same task.

    Dynamic sampling of DAPO (Yu et al., arXiv 2503.14476), bounded to ``loop.resample`` rounds. Returns the batch, with
    its number of groups unchanged, and the groups that were replaced; those of bad records are added to ``bad``.
    """
    settings = config.learner.advantages
    replaced: list[SampleGroup] = []
    for attempt in range(1, config.loop.resample + 1):
        uninformative = [
            g for g in scored if (settings.within_groups and is_tied(g, settings)) or not in_accuracy_range(g, settings)
        ]
        if not uninformative:
            break
        replacements = {group.group_id: prompts.replacement(group.prompt, attempt) for group in uninformative}
        rescored = components.rewards.score(components.rollouts.generate(list(replacements.values())))
        rescored, more_bad = replace_bad(components, prompts, rescored)
        bad += more_bad
        by_id = {group.group_id: group for group in rescored}
        replaced += uninformative
        scored = [by_id[replacements[g.group_id].group_id] if g.group_id in replacements else g for g in scored]
    return scored, replaced


def sync_weights(config: Config, components: Components, probe: ParityProbe, version: int) -> list[list[SampleGroup]]:
    """Send the learner's weights to every engine; returns each engine's completions of the probe batch, for parity.

    Raises:
        RunError: an engine does not hold ``version`` afterwards.
    """
    components.rollouts.update_weights(components.learner.weights)
    probed = probe.completions()
    for engine, groups in enumerate(probed):
        found = {sample.weight_version for group in groups for sample in group.samples}
        if found != {version}:
            raise RunError(
                f"engine {engine}: expected weight version {version} after the sync, found {min(found)}; "
                f"sync.transport={config.sync.transport} did not deliver the new weights"
            )
    return probed


def parity_error(config: Config, components: Components, probed: list[list[SampleGroup]]) -> float:
    """Largest absolute per-token log-prob difference between the engines' probe completions and the learner.

    ``probed`` is [engines][prompts]. The learner must still hold the weights it last sent; the engines may already be
    generating. Raises RunError if the difference exceeds ``sync.parity_tolerance``.
    """
    max_difference = 0.0
    for engine, groups in enumerate(probed):
        learner = np.concatenate(components.learner.logprobs(groups))
        rollout = np.concatenate([s.policy_logprobs for g in groups for s in g.samples])
        difference = float(np.abs(learner - rollout).max())
        if not difference <= config.sync.parity_tolerance:
            raise RunError(
                f"engine {engine} and learner disagree after the weight sync: a token's log-prob differs by "
                f"{difference:.3g}, expected at most sync.parity_tolerance={config.sync.parity_tolerance:g}"
            )
        max_difference = max(max_difference, difference)
    return max_difference


class Clock:
    """Wall-clock seconds of the phases of each step."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Any:
        """Time a phase; phases do not nest."""
        begun = time.perf_counter()
        with HEARTBEAT.busy(phase):
            yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begun

    def lap(self, counts: dict[str, float]) -> dict[str, float]:
        """Seconds per phase and per step since the last lap, and tokens per second; starts the next lap.

        ``rollout`` is the time in which the loop waits for scored completions. ``records`` and ``checkpoint`` are those
        of the step before, since they follow its metrics; ``other`` is the rest, so that the phases add up to the step.
        """
        now = time.perf_counter()
        total, phases = now - self.started, self.seconds
        self.started, self.seconds = now, {}
        return {
            **{f"seconds/{phase}": value for phase, value in phases.items()},
            "seconds/other": total - sum(phases.values()),
            "seconds/step": total,
            "throughput/learner_tokens_per_s": counts["learner/tokens"] / max(phases["learner"], 1e-9),
            "throughput/tokens_per_s": counts["rollout/tokens"] / total,
        }
