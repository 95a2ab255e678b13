"""Checkpoints of a run: written to a temporary name, synced, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from geovlm_ray.errors import RunError

STATE_FILE = "run_state.json"


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, in place of any that is there, and see that it is on the disk.

    Raises:
        OSError: the disk refused it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    for file in folder.rglob("*"):
        _sync(file)


class CheckpointFolder:
    """The newest ``keep`` checkpoints of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a folder, then make it the checkpoint of ``step`` in one rename.

        Raises:
            RunError: the disk refused it.
        """
        target = self.folder / f"step-{step:06d}"
        partial = self.folder / f".partial-step-{step:06d}"
        try:
            fill(partial, write)
            (partial / STATE_FILE).write_text(json.dumps({"step": step}))
            _sync(partial / STATE_FILE)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(self.folder)
        except OSError as error:
            raise RunError(f"checkpoint {target} could not be written: {error}") from error
        for step_folder in self._complete()[: -self.keep]:
            shutil.rmtree(step_folder)

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the newest complete checkpoint, or None."""
        complete = self._complete()
        if not complete:
            return None
        return json.loads((complete[-1] / STATE_FILE).read_text())["step"], complete[-1]

    def _complete(self) -> list[Path]:
        found = [p for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d{6,}", p.name)]
        return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
