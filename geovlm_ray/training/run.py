"""One training run: resume, held-out evaluation, training, summary and report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import AcceptedChange, ContentRecord
from geovlm_ray.core.errors import ConfigError, LostError, StartError
from geovlm_ray.core.files import UNDONE, move_aside, read_object, write_atomically
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.interrupts import Interrupted
from geovlm_ray.core.locks import locked
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.bad_records import FILE as BAD_RECORDS
from geovlm_ray.data.sampler import PromptSampler, Stream
from geovlm_ray.evaluation import validation
from geovlm_ray.evaluation.constant_answers import best_constant_answers, majority_classes
from geovlm_ray.evaluation.contents import run_inputs
from geovlm_ray.learner.batch_advantages import batch_advantages
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.observability.run_monitor import RunMonitor, monitor_run
from geovlm_ray.observability.run_recorder import RunRecorder
from geovlm_ray.report.html import write_report
from geovlm_ray.training.benchmark_evaluation import EVALUATIONS, in_loop_evaluation
from geovlm_ray.training.checkpoint import CheckpointFolder, open_mirror
from geovlm_ray.training.health import HealthMonitor, constant_answer_warnings, settings_warnings
from geovlm_ray.training.loop import train
from geovlm_ray.training.preflight import Ready
from geovlm_ray.training.shown_completions import shown_completions

log = logging.getLogger(__name__)

Build = Callable[[Config, Ready], Components]
NAMES = ("run directory", "choose another run.name")
RESERVED = ("num_cpus", "num_gpus", "memory_gb")
CONFIG_FILE = "config.yaml"
SUMMARY_FILE = "summary.json"
HELD_OUT_BEFORE, HELD_OUT_AFTER = "heldout_before.jsonl", "heldout_after.jsonl"
MAY_CHANGE = (
    *("data.path", "model.path", "evaluation.data"),
    *("run.steps", "run.dir", "run.wait_for_nodes_s", "run.restarts"),
    *("checkpoint.every", "checkpoint.keep", "checkpoint.best", "checkpoint.url"),
    *("rollout.stall_s", "reward.stall_s", "sync.transport"),
    *(f"placement.{kind}.{key}" for kind in ("rollout", "reward", "learner") for key in ("actors", *RESERVED)),
    *(f"placement.sbert.{key}" for key in RESERVED),
    *("placement.strategy", "placement.colocate", "placement.gpu_memory_gb"),
    *("rollout.tensor_parallel", "model.offload", "data.check_images", "data.max_bad"),
    *("run.step_limit_s", "run.stop_if_stuck", "run.trace_steps", "run.log_level"),
    *("run.trackers", "run.project", "run.completions_every"),
)
"""Settings that may change when a run is resumed; of paths, the content counts (`geovlm_ray.core.contents`)."""


def execute(
    config: Config, ready: Ready, build: Build, console: Console, *, accept_changes: bool = False
) -> dict[str, Any]:
    """Start or resume a run with the components that ``build`` creates; returns the content of ``summary.json``.

    With ``accept_changes``, a run is resumed although files that it reads have changed.

    Raises:
        UserError: the run cannot start or continue.
    """
    begun = time.time()
    folder = config.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, *NAMES):
        settings = config.checkpoint
        mirror = open_mirror(settings.url, config.run.name)
        checkpoints = CheckpointFolder(folder / "checkpoints", settings.keep, settings.best, mirror)
        # What a killed process has left may fill the disk.
        checkpoints.remove_partial()
        if mirror and not (folder / CONFIG_FILE).is_file():
            for name in (CONFIG_FILE, CONTENTS_FILE):
                mirror.fetch_file(folder / name)
        check_unchanged(config, folder / CONFIG_FILE, MAY_CHANGE, *NAMES)
        summary = read_object(folder / SUMMARY_FILE) if (folder / SUMMARY_FILE).is_file() else {}
        if summary.get("steps") == config.run.steps:
            console.print(
                f"Run {config.run.name} is finished; remove {folder} or choose another run.name to start a new run"
            )
            write_report(folder)
            return summary
        latest = checkpoints.latest()
        contents, change = _check_contents(config, ready, latest[0] if latest else 0, accept_changes, console)
        # What was found after fewer steps is not shown beside the metrics of more, nor taken for the end of the run.
        for name in (SUMMARY_FILE, HELD_OUT_AFTER):
            if (folder / name).is_file():
                move_aside(folder / name, folder / UNDONE)
        write_atomically(folder / CONFIG_FILE, to_yaml(config))
        if mirror:
            for name in (CONFIG_FILE, CONTENTS_FILE):
                mirror.put_file(folder / name)
        bad = ready.stream.bad
        bad.keep_in(folder / BAD_RECORDS)
        if bad:
            console.print(bad.summary)
        with monitor_run(config) as run_monitor:
            if change:
                log.warning("resuming with changes that were accepted: %s", change.text)
            summary = _run_with_restarts(config, ready, build, checkpoints, latest, run_monitor, console)
        other_base = contents.changed_after_start("model")
        if other_base and "heldout" in summary:
            summary["heldout"] = {"incomparable": f"the base model has changed since ({other_base.text})"}
        seconds = time.time() - begun
        summary = {"seconds": seconds, "steps": config.run.steps, "bad_records": len(bad), **summary}
        write_atomically(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        write_report(folder)
    return summary


def _check_contents(
    config: Config, ready: Ready, reached: int, accept: bool, console: Console
) -> tuple[ContentRecord, AcceptedChange | None]:
    """Record what the run reads, and what of it has changed and was accepted.

    Raises:
        ConfigError: the run is already beyond ``run.steps``.
        RunError: something has changed that was not accepted.
    """
    folder = config.run.folder
    if reached > config.run.steps:
        raise ConfigError(
            f"run.steps: expected at least {reached}, the step that the run in {folder} has reached, found "
            f"{config.run.steps}; {NAMES[1]} to train for fewer steps"
        )
    record = ContentRecord(folder / CONTENTS_FILE)
    inputs = run_inputs(config, ready.tasks, ready.model, config.reward)
    change = record.update(
        inputs, accept=accept, step=reached, description=NAMES[0], remedy=NAMES[1], announce=console.print
    )
    if change:
        _set_scores_aside(folder, change)
    record.write()
    return record, change


def _set_scores_aside(folder: Path, change: AcceptedChange) -> None:
    """Move scores of former content aside, which those of the present content cannot be compared with."""
    if (folder / HELD_OUT_BEFORE).is_file():
        move_aside(folder / HELD_OUT_BEFORE, folder / UNDONE)
    if change.differences.keys() - {"data", "model"}:
        for evaluated in (folder / EVALUATIONS).glob("step-*"):
            move_aside(evaluated, folder / EVALUATIONS / UNDONE)


def _run_with_restarts(
    config: Config,
    ready: Ready,
    build: Build,
    checkpoints: CheckpointFolder,
    latest: tuple[int, Path] | None,
    run_monitor: RunMonitor,
    console: Console,
) -> dict[str, Any]:
    """Run; restart from the latest checkpoint if a component is lost that cannot be replaced on its own."""
    left = config.run.restarts
    try:
        while True:
            try:
                return _attempt(config, ready, build, checkpoints, latest, run_monitor, console)
            except LostError as error:
                if isinstance(error, StartError) or not left:
                    raise
                left -= 1
                log.warning("%s; restarting from the latest checkpoint (run.restarts: %d left)", error, left)
                latest = checkpoints.latest()
    except Interrupted as error:
        raise Interrupted(error.number, checkpoints.describe_progress(config.run.steps)) from error


def _attempt(
    config: Config,
    ready: Ready,
    build: Build,
    checkpoints: CheckpointFolder,
    latest: tuple[int, Path] | None,
    run_monitor: RunMonitor,
    console: Console,
) -> dict[str, Any]:
    """Build all components, resume from the latest checkpoint, train, and close the components."""
    start = latest[0] if latest else 0
    advantages = partial(batch_advantages, config=config.learner, max_completion_tokens=config.rollout.max_tokens)
    run, max_tokens = config.run, config.rollout.max_tokens
    monitor = HealthMonitor(config.reward.think, max_tokens, run.stop_if_stuck, config.learner.advantages)
    recorder = RunRecorder(
        config.run.folder,
        config.run.steps,
        console,
        monitor,
        advantages,
        trackers=run_monitor.trackers,
        completions_every=config.run.completions_every,
        select=shown_completions,
    )
    recorder.rewind(start)
    if not latest:
        recorder.warn(0, settings_warnings(config))
    console.print(f"Starting engines and learner for {ready.model.name} ...")
    with HEARTBEAT.busy("start"):
        components = build(config, ready)
    recorder.report = run_monitor.combine_reports(components.report, components.timeline)
    try:
        if latest:
            components.learner.load(latest[1])
            console.print(f"Resuming after step {start} from {latest[1]}")
        evaluation = in_loop_evaluation(config, ready.stream.answers, components.rollouts, checkpoints, start)
        components = replace(components, recorder=recorder, checkpoints=checkpoints, evaluator=evaluation)
        return _train_and_evaluate(config, ready, components, recorder, start, console)
    finally:
        components.close()
        checkpoints.abandon()
        recorder.close()


def _train_and_evaluate(
    config: Config, ready: Ready, components: Components, recorder: RunRecorder, start: int, console: Console
) -> dict[str, Any]:
    sampler = PromptSampler(ready.stream, config.data, config.rollout.prompts_per_step)
    if not config.evaluation.num_examples:
        return {"parity_max_abs": train(config, components, sampler, start)}
    held_out = partial(ready.stream.held_out, ready.tasks, config.evaluation.num_examples)
    constant_answers = partial(best_constant_answers, components.rewards, ready.stream, config=config.reward)
    before = _held_out(config, ready.stream, components, held_out(), "before", console)
    examples = held_out()
    constants = constant_answers(examples)
    if not start:
        recorder.warn(0, constant_answer_warnings(before, constants, "before training"))
    parity = train(config, components, sampler, start)
    after = _held_out(config, ready.stream, components, examples, "after", console)
    if len(held_out()) < len(examples):
        examples = held_out()
        before, constants = validation.completions_of(before, examples), constant_answers(examples)
        validation.write_completions(before, config.run.folder / HELD_OUT_BEFORE)
    if not examples:
        return {"parity_max_abs": parity}
    recorder.warn(config.run.steps, constant_answer_warnings(after, constants, "after training"))
    majorities = majority_classes(components.rewards, ready.stream, examples, config.reward)
    return {
        "heldout": validation.held_out_summary(before, after, constants, config.reward.think, majorities),
        "heldout_rewards": {"before": validation.rewards_of(before), "after": validation.rewards_of(after)},
        "parity_max_abs": parity,
    }


def _held_out(
    config: Config, stream: Stream, components: Components, examples: Sequence[Example], when: str, console: Console
) -> list[validation.Completion]:
    """Scored completions of the held-out examples; a resumed run reuses those from before training.

    Until the first weight sync, engines have the base weights, so those from before training can also be made later.
    """
    path = config.run.folder / (HELD_OUT_BEFORE if when == "before" else HELD_OUT_AFTER)
    if when == "before" and path.is_file():
        rows = validation.read_completions(path)
        if validation.are_of(rows, examples):
            return rows
        move_aside(path, config.run.folder / UNDONE)
    console.print(f"Scoring {len(examples)} held-out examples {when} training, sampled and greedy ...")
    with HEARTBEAT.busy("evaluation"):
        prompts = [Prompt(i, example) for i, example in enumerate(examples)]
        set_aside = partial(stream.set_aside, step=0 if when == "before" else config.run.steps)
        rows = validation.validation_completions(components.rollouts, components.rewards, prompts, set_aside)
    validation.write_completions(rows, path)
    return rows
