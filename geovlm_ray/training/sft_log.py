"""Records of supervised fine-tuning: JSON lines per step, terminal progress, and an HTML page of curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_objects, write_atomically
from geovlm_ray.report.curves import StepMetrics, curve
from geovlm_ray.report.page import render

FILE = "sft.jsonl"
PAGE = "sft.html"


class SftLog:
    """Log of one output folder; ``rows`` has one entry per step, with ``eval/...`` keys if it was evaluated."""

    def __init__(self, folder: Path, steps: int, every: int, console: Console) -> None:
        self.folder = folder
        self.steps = steps
        self.every = every
        self.console = console
        self.rows: list[StepMetrics] = []
        self._shown = 0

    def rewind(self, step: int) -> None:
        """Drop the rows after ``step``, from which training resumes."""
        file = self.folder / FILE
        self.rows = [row for row in read_objects(file) if row["step"] <= step] if file.is_file() else []
        write_atomically(file, "".join(f"{json.dumps(row)}\n" for row in self.rows))
        self._shown = len(self.rows)

    def add(self, row: StepMetrics) -> None:
        """Log a step and print it if a multiple of ``every``, evaluated or last; raises RunError if that fails."""
        self.rows.append(row)
        try:
            with (self.folder / FILE).open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunError(f"{self.folder / FILE} cannot be written: {error.strerror or error}") from error
        if row["step"] % self.every == 0 or row["step"] == self.steps or "eval/loss" in row:
            self._show(row)

    def write_page(self, title: str, changes: Sequence[str]) -> None:
        """Write the curves, and the accepted changes of what was trained on, as a self-contained HTML page."""
        charts = (
            curve(self.rows, {"loss": "training", "eval/loss": "held out"}, "Loss", "nats per response token"),
            curve(self.rows, {"eval/token_accuracy": "held out"}, "Token accuracy, held out", "share of tokens"),
            curve(self.rows, {"lr": "rate"}, "Learning rate", "rate"),
            curve(self.rows, {"grad_norm": "norm"}, "Gradient norm before clipping", "norm"),
        )
        write_atomically(self.folder / PAGE, render("sft.html", name=title, charts=charts, changes=changes))

    def _show(self, row: StepMetrics) -> None:
        """Print mean loss and throughput since the last printed line, and the remaining time."""
        recent = self.rows[self._shown :]
        self._shown = len(self.rows)
        seconds = sum(r["seconds"] for r in recent)
        left = seconds / len(recent) * (self.steps - row["step"])
        line = f"step {row['step']}/{self.steps}  loss {sum(r['loss'] for r in recent) / len(recent):.4f}"
        if "eval/loss" in row:
            line += f"  held out: loss {row['eval/loss']:.4f}, token accuracy {row['eval/token_accuracy']:.3f}"
        speed = sum(r["tokens"] for r in recent) / seconds
        self.console.print(f"{line}  {speed:,.0f} tokens/s  {left:.0f} s left", highlight=False, soft_wrap=True)


def sft_summary(rows: Sequence[StepMetrics], changed: Sequence[int] = ()) -> dict[str, Any]:
    """Steps, training seconds, tokens, final loss, and the best (by loss) and last evaluation, None without any.

    After the steps ``changed``, other content was accepted: evaluations before the last of them are not comparable.
    """
    since = max((step for step in changed if step < len(rows)), default=0)
    evaluated = [
        {"step": row["step"], "loss": row["eval/loss"], "token_accuracy": row["eval/token_accuracy"]}
        for row in rows
        if "eval/loss" in row and row["step"] > since
    ]
    return {
        "steps": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
        "loss": rows[-1]["loss"],
        "evaluation": {"best": min(evaluated, key=lambda e: e["loss"]), "last": evaluated[-1]} if evaluated else None,
    }
