"""Weights & Biases (``run.trackers=[wandb]``)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion, import_tracker, kept_id


class WandbApi:
    """Logs to a run of Weights & Biases, or of a package with the same functions."""

    def __init__(self, package: Any, run: Any) -> None:
        self.package, self.run = package, run

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self.run.log(dict(metrics), step=step)

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Send a table of completions, and their pictures."""
        pictures = {
            f"completions/{c.name}": self.package.Image(c.picture, caption=c.caption) for c in completions if c.picture
        }
        table = self.package.Table(columns=list(COLUMNS), data=[list(c.values) for c in completions])
        self.run.log({"completions/table": table, **pictures}, step=step)


class WandbTracker(WandbApi):
    """Logs to Weights & Biases; a resumed training run continues the same W&B run."""

    def __init__(self, config: Config) -> None:
        """Start or resume the W&B run; raises ConfigError without wandb, and RunError if W&B rejects the run."""
        wandb = import_tracker("wandb")
        folder = config.run.folder
        try:
            run = wandb.init(
                project=config.run.project,
                name=config.run.name,
                id=kept_id(folder, "wandb", lambda: uuid.uuid4().hex),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", quiet=True),
            )
        except wandb.Error as error:
            raise RunError(f"run.trackers: wandb: {error}") from error
        super().__init__(wandb, run)

    def close(self, failed: bool) -> None:
        """Send what is left, and mark the run as finished or failed."""
        self.run.finish(exit_code=int(failed))
