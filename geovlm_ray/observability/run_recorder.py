"""Records of a run: metrics, all completions, TensorBoard, and terminal progress."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import UNDONE, move_aside, read_objects, write_atomically, writing
from geovlm_ray.core.interfaces import TRAINED, GroupsByStatus, Report
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.data.sample_rows import SampleRow, example_columns, sample_columns, schema_with, write_rows
from geovlm_ray.observability.trackers.base import ExperimentTracker, ShownCompletion
from geovlm_ray.observability.trackers.tensorboard import TensorBoardTracker

log = logging.getLogger(__name__)

Advantages = Callable[[Sequence[SampleGroup]], Mapping[int, np.ndarray]]
"""Advantages of each group's samples, [G], keyed by group id."""

ROLLOUT_SCHEMA = schema_with(
    {
        "": {"step": pa.int32(), "group_id": pa.int64(), "group_status": pa.string()},
        "dialect": {"sample": pa.int32()},
        "completion": {"token_ids": pa.list_(pa.int32()), "logprobs": pa.list_(pa.float32())},
        "finish_reason": {
            "weight_version": pa.int32(),
            "weight_updates": pa.string(),
            "loss_mask": pa.list_(pa.bool_()),
            "sample_images": pa.list_(pa.string()),
            "reward": pa.float64(),
        },
        "format": {"accuracy": pa.float64()},
        "status": {"advantage": pa.float64()},
    }
)


Select = Callable[[int, Sequence[SampleRow]], Sequence[ShownCompletion]]
"""The completions that trackers show, of the rows of a step."""

MAX_GAPS = 10
"""Steps without records that a warning names."""


@dataclass(frozen=True)
class TrainingWarning:
    """A problem of a run: its kind, and a message that says what was found and what to do."""

    kind: str
    message: str


class Monitor(Protocol):
    """Checks every scored batch."""

    @property
    def reason_to_stop(self) -> str | None:
        """Why the run is to end, if the latest batches show that it cannot learn."""

    def update(
        self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]
    ) -> tuple[dict[str, float], list[TrainingWarning]]:
        """Further metrics of a batch, given those of its step, and the warnings that are new in it."""


class RunRecorder:
    """Writes the records of one run directory, and forwards them to experiment trackers.

    Every ``completions_every`` steps, TensorBoard and the trackers also get the completions that ``select`` chooses;
    0: never.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        console: Console,
        monitor: Monitor,
        advantages: Advantages,
        *,
        trackers: ExperimentTracker | None = None,
        completions_every: int = 0,
        select: Select = lambda step, rows: (),
    ) -> None:
        self.folder = folder
        self.total_steps = total_steps
        self.console = console
        self.monitor = monitor
        self.advantages = advantages
        self.trackers = trackers
        self.completions_every = completions_every
        self.select = select
        self.report: Report | None = None
        self._metrics = folder / "metrics.jsonl"
        self._warnings = folder / "warnings.jsonl"
        self._rollouts = folder / "rollouts"
        self._rollouts.mkdir(parents=True, exist_ok=True)
        self._events = folder / "tensorboard"
        self._board: TensorBoardTracker | None = None
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("train", total=total_steps, figures="")

    def rewind(self, step: int) -> None:
        """Drop the records after ``step``, from which the run resumes; completions are moved to `UNDONE`.

        Steps up to it without records, as after a power failure, are named in a warning.

        Raises:
            DataError: a line of metrics or warnings is no object with a step.
        """
        for lines in (self._metrics, self._warnings):
            # A run that starts anew gives the warnings of its start again.
            rows = [row for row in _rows(lines) if row["step"] <= step] if step else []
            write_atomically(lines, "".join(f"{json.dumps(row)}\n" for row in rows))
            if lines == self._metrics:
                _warn_of_gaps(lines, step, {row["step"] for row in rows})
        files = {int(file.stem.removeprefix("step-")): file for file in self._rollouts.glob("step-*.parquet")}
        _warn_of_gaps(self._rollouts, step, files.keys())
        for number, file in files.items():
            if number > step:
                move_aside(file, self._rollouts / UNDONE)
        self._board = TensorBoardTracker(self._events, first_step=step + 1)
        self._progress.reset(self._bar, completed=step, total=self.total_steps)

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> str | None:
        """Record one step: completions first, so that every step with metrics has its completions.

        Returns why the run is to end, if it cannot learn.

        Raises:
            DataError: completions, metrics or TensorBoard events cannot be written.
        """
        rows = rollout_rows(step, groups_by_status, self.advantages)
        write_rows(self._rollouts / f"step-{step:06d}.parquet", rows, ROLLOUT_SCHEMA)
        all_groups = [group for groups in groups_by_status.values() for group in groups if not group.problem]
        answer_metrics, warnings = self.monitor.update(all_groups, metrics)
        metrics = {**metrics, **answer_metrics}
        with writing(self._metrics), self._metrics.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        is_shown = self.completions_every > 0 and step % self.completions_every == 0
        completions = self.select(step, rows) if is_shown else ()
        for tracker in filter(None, (self._board, self.trackers)):
            tracker.log_metrics(step, metrics)
            if completions:
                tracker.log_completions(step, completions)
        if self.report is not None:
            self.report({"step": step, **metrics})
        self._show(step, metrics)
        self.warn(step, warnings)
        return self.monitor.reason_to_stop

    def warn(self, step: int, warnings: Sequence[TrainingWarning]) -> None:
        """Record warnings of a step, and show them on the terminal; raises DataError if they cannot be written."""
        with writing(self._warnings), self._warnings.open("a") as file:
            for warning in warnings:
                file.write(json.dumps({"step": step, **asdict(warning)}) + "\n")
        for warning in warnings:
            log.info("step %d, %s: %s", step, warning.kind, warning.message)
            self.console.print(f"Warning, step {step}: {warning.message}", style="yellow")

    def close(self) -> None:
        """Stop the progress bar and close the file of TensorBoard's events."""
        self._progress.stop()
        if self._board is not None:
            self._board.close(failed=False)

    def _show(self, step: int, metrics: dict[str, float]) -> None:
        figures = (
            f"reward {metrics['reward/mean']:.3f}  {metrics['throughput/tokens_per_s']:,.0f} tokens/s  "
            f"staleness {metrics['staleness/max']:.0f}"
        )
        if self.console.is_interactive:
            if not self._progress.live.is_started:
                self._progress.start()
            self._progress.update(self._bar, completed=step, figures=figures)
            return
        left = metrics["seconds/step"] * (self.total_steps - step)
        self.console.print(f"step {step}/{self.total_steps}  {figures}  {left:.0f} s left")


def _rows(lines: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, each with a number ``step``; empty without the file."""
    rows = read_objects(lines) if lines.is_file() else []
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("step"), int | float):
            raise DataError(f"{lines}, line {number}: expected a number 'step', found {row.get('step')!r:.200}")
    return rows


def _warn_of_gaps(records: Path, step: int, present: Collection[float]) -> None:
    missing = [number for number in range(1, step + 1) if number not in present]
    if missing:
        shown = ", ".join(map(str, missing[:MAX_GAPS])) + (", ..." if missing[MAX_GAPS:] else "")
        log.warning("%s: expected all steps from 1 to %d, found none of %d: %s", records, step, len(missing), shown)


def rollout_rows(step: int, groups_by_status: GroupsByStatus, advantages: Advantages) -> list[SampleRow]:
    """One row per sample, in `ROLLOUT_SCHEMA`; only trained samples have an advantage, without any KL in the reward."""
    rows = []
    trained = advantages(groups_by_status[TRAINED])
    for status, group in ((status, group) for status, groups in groups_by_status.items() for group in groups):
        of_example = example_columns(group.prompt.example)
        of_group = {**of_example, "step": step, "group_id": group.group_id, "group_status": status}
        for i, sample in enumerate(group.samples):
            assert sample.reward is not None
            rows.append(
                {
                    **of_group,
                    **sample_columns(sample),
                    "sample": i,
                    "token_ids": list(sample.token_ids),
                    "logprobs": list(sample.logprobs),
                    "weight_version": sample.weight_version,
                    "weight_updates": json.dumps(sample.weight_updates),
                    "loss_mask": list(sample.loss_mask) or None,
                    "sample_images": list(sample.images) or None,
                    "reward": sample.reward.total,
                    "accuracy": sample.reward.accuracy,
                    "advantage": float(trained[group.group_id][i]) if status == TRAINED else None,
                }
            )
    return rows
