"""The interface of experiment trackers, and what all of them show of a step's completions."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import read_object, write_atomically

COLUMNS = ("step", "task", "example_id", "question", "completion", "reference", "reward", "format", "accuracy")
"""Columns of a table of completions."""


class ExperimentTracker(Protocol):
    """Records metrics and completions of a run."""

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Record selected completions of a step, with their pictures."""

    def close(self, failed: bool) -> None:
        """Send what is left, and mark the run as finished or failed."""


@dataclass(frozen=True)
class ShownCompletion:
    """A completion: its values in the order of `COLUMNS`, and its image with true and predicted boxes.

    ``name`` says which one it is (``object_detection/best``), the same at every step; ``picture`` is None if the image
    cannot be read on this machine.
    """

    name: str
    values: tuple[Any, ...]
    picture: Image.Image | None
    caption: str


def import_tracker(package: str) -> Any:
    """Import the optional package of a tracker; raises ConfigError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"run.trackers: expected the package {package}, found none ({error}); pip install {package}"
        ) from error


def kept_id(folder: Path, tracker: str, create: Callable[[], str]) -> str:
    """The id under which a tracker knows the run in ``folder``; created and kept if there is none yet."""
    file = folder / "trackers.json"
    ids = read_object(file) if file.is_file() else {}
    if tracker not in ids:
        ids[tracker] = create()
        write_atomically(file, json.dumps(ids) + "\n")
    return str(ids[tracker])
