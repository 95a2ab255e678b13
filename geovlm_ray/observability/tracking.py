"""Records of a run: metrics, all completions, TensorBoard, and terminal progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import UNDONE, move_aside, read_objects, write_atomically
from geovlm_ray.core.interfaces import GroupsByStatus, Report
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.rewards.monitor import HackingMonitor
from geovlm_ray.tasks.targets import plain_frame, plain_target

Advantages = Callable[[SampleGroup], np.ndarray]

ROLLOUT_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("group_id", pa.int64()),
        ("group_status", pa.string()),
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("images", pa.list_(pa.string())),
        ("pixels", pa.string()),
        ("question", pa.string()),
        ("target", pa.string()),
        ("frame", pa.string()),
        ("dialect", pa.string()),
        ("sample", pa.int32()),
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
        ("weight_version", pa.int32()),
        ("weight_updates", pa.string()),
        ("reward", pa.float64()),
        ("format", pa.float64()),
        ("accuracy", pa.float64()),
        ("components", pa.string()),
        ("status", pa.string()),
        ("advantage", pa.float64()),
    ]
)


class RunTracker:
    """Writes the records of one run directory."""

    def __init__(
        self, folder: Path, total_steps: int, console: Console, monitor: HackingMonitor, advantages: Advantages
    ) -> None:
        self.folder = folder
        self.total_steps = total_steps
        self.console = console
        self.monitor = monitor
        self.advantages = advantages
        self.report: Report | None = None
        self._metrics = folder / "metrics.jsonl"
        self._rollouts = folder / "rollouts"
        self._rollouts.mkdir(parents=True, exist_ok=True)
        self._board: SummaryWriter | None = None
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("train", total=total_steps, figures="")

    def rewind(self, step: int) -> None:
        """Drop the records after ``step``, from which the run resumes; completions are moved to `UNDONE`."""
        rows = read_objects(self._metrics) if self._metrics.is_file() else []
        write_atomically(self._metrics, "".join(f"{json.dumps(row)}\n" for row in rows if row["step"] <= step))
        for file in self._rollouts.glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                move_aside(file, self._rollouts / UNDONE)
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)
        self._progress.reset(self._bar, completed=step, total=self.total_steps)

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> None:
        """Record one step: completions first, so that every step with metrics has its completions.

        Raises:
            RunError: metrics or TensorBoard events could not be written.
            DataError: completions could not be written.
        """
        write_atomically(
            self._rollouts / f"step-{step:06d}.parquet", _parquet(rollout_rows(step, groups_by_status, self.advantages))
        )
        all_groups = [group for groups in groups_by_status.values() for group in groups]
        hacking_metrics, warnings = self.monitor.update(all_groups)
        metrics = {**metrics, **hacking_metrics}
        with _recording(self.folder):
            with self._metrics.open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            if self._board is not None:
                for name, value in metrics.items():
                    self._board.add_scalar(name, value, step)
        if self.report is not None:
            self.report({"step": step, **metrics})
        self._show(step, metrics)
        for warning in warnings:
            self.console.print(f"Warning, step {step}: {warning}", style="yellow", highlight=False, markup=False)

    def close(self) -> None:
        """Stop the progress bar and flush TensorBoard.

        Raises:
            RunError: remaining TensorBoard events could not be written.
        """
        self._progress.stop()
        if self._board is not None:
            with _recording(self.folder):
                self._board.close()

    def _show(self, step: int, metrics: dict[str, float]) -> None:
        figures = (
            f"reward {metrics['reward/mean']:.3f}  {metrics['throughput/tokens_per_s']:,.0f} tokens/s  "
            f"staleness {metrics['staleness/max']:.0f}"
        )
        if self.console.is_terminal:
            if not self._progress.live.is_started:
                self._progress.start()
            self._progress.update(self._bar, completed=step, figures=figures)
            return
        left = metrics["seconds/step"] * (self.total_steps - step)
        self.console.print(f"step {step}/{self.total_steps}  {figures}  {left:.0f} s left", highlight=False)


@contextmanager
def _recording(folder: Path) -> Iterator[None]:
    """Convert an OSError while writing metrics into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"metrics of {folder} could not be written: {error}") from error


def rollout_rows(step: int, groups_by_status: GroupsByStatus, advantages: Advantages) -> list[dict[str, Any]]:
    """One row per sample, in `ROLLOUT_SCHEMA`."""
    rows = []
    for status, group in ((status, group) for status, groups in groups_by_status.items() for group in groups):
        example = group.prompt.example
        shared = {
            "step": step,
            "group_id": group.group_id,
            "group_status": status,
            "example_id": example.id,
            "task": example.task,
            "images": list(example.images),
            "pixels": json.dumps(asdict(example.pixels)),
            "question": example.question,
            "target": json.dumps(plain_target(example.target)),
            "frame": json.dumps(plain_frame(example.frame)),
            "dialect": example.dialect,
        }
        for i, (sample, advantage) in enumerate(zip(group.samples, advantages(group), strict=True)):
            assert sample.reward is not None
            rows.append(
                {
                    **shared,
                    "sample": i,
                    "completion": sample.text,
                    "token_ids": list(sample.token_ids),
                    "logprobs": list(sample.logprobs),
                    "finish_reason": sample.finish_reason,
                    "weight_version": sample.weight_version,
                    "weight_updates": json.dumps(sample.weight_updates),
                    "reward": sample.reward.total,
                    "format": sample.reward.format,
                    "accuracy": sample.reward.accuracy,
                    "components": json.dumps(sample.reward.components),
                    "status": sample.reward.status,
                    "advantage": float(advantage),
                }
            )
    return rows


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=ROLLOUT_SCHEMA), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
