"""All experiment trackers of a run as one; a tracker that fails never ends the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from geovlm_ray.config import Config
from geovlm_ray.observability.trackers.base import ExperimentTracker, ShownCompletion

log = logging.getLogger(__name__)


class Trackers:
    """The trackers of ``run.trackers``, opened in their order by the functions of ``known``."""

    def __init__(self, config: Config, known: Mapping[str, Callable[[Config], ExperimentTracker]]) -> None:
        """Open all; if one cannot be opened, those before it are closed.

        Raises:
            ConfigError: the package of a tracker is not installed.
            RunError: a tracker rejects the run.
        """
        self._opened: dict[str, ExperimentTracker] = {}
        try:
            for name in config.run.trackers:
                self._opened[name] = known[name](config)
        except BaseException:
            self.close(failed=True)
            raise

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._each(lambda tracker: tracker.log_metrics(step, metrics), f"metrics of step {step}")

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Send selected completions of a step."""
        self._each(lambda tracker: tracker.log_completions(step, completions), f"completions of step {step}")

    def close(self, failed: bool) -> None:
        """Send what is left, and mark the run as finished or failed."""
        self._each(lambda tracker: tracker.close(failed), "end of the run")

    def _each(self, call: Callable[[ExperimentTracker], None], what: str) -> None:
        """Call all trackers; what one did not take is logged, and stays in the run's own records."""
        for name, tracker in self._opened.items():
            try:
                call(tracker)
            except Exception as error:
                log.warning("tracker %s: the %s was not recorded: %s: %s", name, what, type(error).__name__, error)
