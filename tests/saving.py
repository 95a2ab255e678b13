"""Checkpoints of a trained policy, complete on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geovlm_ray.training.checkpoint import Saver


def finish_saving(saver: Saver) -> None:
    """Wait until the background write of the last `save` is complete."""
    while not saver.saved():
        time.sleep(0.01)


def save_whole(saver: Saver, folder: Path) -> None:
    """Save a policy and wait until all its files are written."""
    saver.save(folder)
    finish_saving(saver)
