"""Weights & Biases (``run.trackers=[wandb]``)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion, import_tracker, kept_id


class WandbTracker:
    """Logs to Weights & Biases; a resumed training run continues the same W&B run."""

    def __init__(self, config: Config) -> None:
        """Start or resume the W&B run; raises ConfigError without wandb, and RunError if W&B rejects the run."""
        self._wandb = import_tracker("wandb")
        folder = config.run.folder
        try:
            self._run = self._wandb.init(
                project=config.run.project,
                name=config.run.name,
                id=kept_id(folder, "wandb", lambda: uuid.uuid4().hex),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
                settings=self._wandb.Settings(console="off", quiet=True),
            )
        except self._wandb.Error as error:
            raise RunError(f"run.trackers: wandb: {error}") from error

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Send a table of completions, and their pictures."""
        pictures = {
            f"completions/{c.name}": self._wandb.Image(c.picture, caption=c.caption) for c in completions if c.picture
        }
        table = self._wandb.Table(columns=list(COLUMNS), data=[list(c.values) for c in completions])
        self._run.log({"completions/table": table, **pictures}, step=step)

    def close(self, failed: bool) -> None:
        """Send what is left, and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))
