"""MLflow (``run.trackers=[mlflow]``); ``MLFLOW_TRACKING_URI`` names the server."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from geovlm_ray.config import Config, flat
from geovlm_ray.core.errors import RunError
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion, import_tracker, kept_id

MAX_PARAMETER_CHARS, PARAMETERS_PER_CALL = 500, 100
"""Limits of MLflow's servers of every version."""


class MlflowTracker:
    """Logs to MLflow, in the background; a resumed training run continues the same MLflow run."""

    def __init__(self, config: Config) -> None:
        """Start or resume the MLflow run.

        Raises:
            ConfigError: the package mlflow is not installed.
            RunError: the server is not reachable or rejects the run.
        """
        self._mlflow = import_tracker("mlflow")
        self._client = self._mlflow.MlflowClient()
        try:
            self._run_id = kept_id(config.run.folder, "mlflow", lambda: self._new_run(config))
            self._client.update_run(self._run_id, status="RUNNING")
        except self._mlflow.exceptions.MlflowException as error:
            raise RunError(f"run.trackers: mlflow: {error}") from error

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        now = int(time.time() * 1000)
        values = [self._mlflow.entities.Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values, synchronous=False)

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Send completions as JSON, and their pictures."""
        rows = [dict(zip(COLUMNS, c.values, strict=True)) for c in completions]
        self._client.log_text(self._run_id, json.dumps(rows, indent=1), f"completions/step-{step:06d}.json")
        for c in completions:
            if c.picture:
                self._client.log_image(self._run_id, c.picture, key=f"completions/{c.name}", step=step)

    def close(self, failed: bool) -> None:
        """Send what is left, and mark the run as finished or failed."""
        self._mlflow.flush_async_logging()
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")

    def _new_run(self, config: Config) -> str:
        run = config.run
        found = self._client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.project)
        run_id = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
        parameters = [
            self._mlflow.entities.Param(key, str(value)[:MAX_PARAMETER_CHARS]) for key, value in flat(config).items()
        ]
        for start in range(0, len(parameters), PARAMETERS_PER_CALL):
            self._client.log_batch(run_id, params=parameters[start : start + PARAMETERS_PER_CALL])
        return run_id
