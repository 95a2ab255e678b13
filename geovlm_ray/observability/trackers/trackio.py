"""Trackio (``run.trackers=[trackio]``): a local dashboard, or a Space of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geovlm_ray.config import Config
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion, import_tracker


class TrackioTracker:
    """Logs to Trackio; a resumed training run continues the Trackio run of its name."""

    def __init__(self, config: Config) -> None:
        """Start or resume the Trackio run; raises ConfigError without trackio."""
        self._trackio = import_tracker("trackio")
        self._run = self._trackio.init(
            project=config.run.project,
            name=config.run.name,
            config=config.model_dump(mode="json"),
            resume="allow",
            embed=False,
        )

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Send a table of completions, and their pictures."""
        pictures = {
            f"completions/{c.name}": self._trackio.Image(c.picture, caption=c.caption) for c in completions if c.picture
        }
        table = self._trackio.Table(columns=list(COLUMNS), data=[list(c.values) for c in completions])
        self._run.log({"completions/table": table, **pictures}, step=step)

    def close(self, failed: bool) -> None:
        """Send what is left; Trackio does not record whether a run failed."""
        self._run.finish()
