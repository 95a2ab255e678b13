"""Optional logging of metrics to Weights & Biases (``run.wandb``)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from geovlm_ray.config import Config
from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.core.files import read_text, write_atomically

ID_FILE = "wandb-id.txt"


def load_wandb(project: str) -> Any:
    """Import the optional package wandb; raises ConfigError if it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(f"run.wandb={project}: expected the package wandb, found none; pip install wandb") from error
    return wandb


class WandbLog:
    """Metrics callback that logs to Weights & Biases; a resumed training run continues the same W&B run."""

    def __init__(self, config: Config, project: str) -> None:
        """Start or resume the W&B run; raises ConfigError without wandb, and RunError if W&B rejects the run."""
        wandb = load_wandb(project)
        folder = config.run.folder
        id_file = folder / ID_FILE
        if not id_file.is_file():
            write_atomically(id_file, uuid.uuid4().hex + "\n")
        try:
            self._run = wandb.init(
                project=project,
                name=config.run.name,
                id=read_text(id_file).strip(),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", quiet=True),
            )
        except wandb.Error as error:
            raise RunError(f"run.wandb={project}: {error}") from error

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log(dict(metrics), step=int(metrics["step"]))

    def close(self, failed: bool) -> None:
        """Flush the metrics and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))
