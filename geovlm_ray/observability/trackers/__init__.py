"""Experiment trackers (``run.trackers``), which TensorBoard is beside always; plugins may add to `TRACKERS`."""

from __future__ import annotations

from collections.abc import Callable

from geovlm_ray.config import Config
from geovlm_ray.core.errors import ConfigError, expected_one_of
from geovlm_ray.observability.trackers.base import ExperimentTracker, import_tracker
from geovlm_ray.observability.trackers.mlflow import MlflowTracker
from geovlm_ray.observability.trackers.trackio import TrackioTracker
from geovlm_ray.observability.trackers.wandb import WandbTracker

TRACKERS: dict[str, Callable[[Config], ExperimentTracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}
"""What opens a tracker for a run that starts or resumes; the built-in ones are named like their packages."""
_BUILT_IN = frozenset(TRACKERS)


def check_trackers(names: list[str]) -> None:
    """Raise ConfigError for an unknown tracker, or for one whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"run.trackers: {expected_one_of(TRACKERS, name)}")
        if name in _BUILT_IN:
            import_tracker(name)
