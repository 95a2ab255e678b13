"""Trackio (``run.trackers=[trackio]``): a local dashboard, or a Space of the Hugging Face Hub."""

from __future__ import annotations

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError, reason_of
from geovlm_ray.observability.trackers.base import import_tracker
from geovlm_ray.observability.trackers.wandb import WandbApi


class TrackioTracker(WandbApi):
    """Logs to Trackio; a resumed training run continues the Trackio run of its name."""

    def __init__(self, config: Config) -> None:
        """Start or resume the Trackio run; raises ConfigError without trackio, RunError if it cannot be opened."""
        trackio = import_tracker("trackio")
        try:
            run = trackio.init(
                project=config.run.project,
                name=config.run.name,
                config=config.model_dump(mode="json"),
                resume="allow",
                embed=False,
            )
        except Exception as error:  # Of a library that names none.
            raise RunError(f"run.trackers: trackio: {reason_of(error)}") from error
        super().__init__(trackio, run)

    def close(self, failed: bool) -> None:
        """Send what is left; Trackio does not record whether a run failed."""
        self.run.finish()
