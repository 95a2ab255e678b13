"""Checkpoints of a run: written to a temporary name, synced, then renamed; verified before a run goes on from one."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from geovlm_ray.errors import RunError

log = logging.getLogger(__name__)

STATE_FILE = "run_state.json"
BLOCK_BYTES = 2**22


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
            (partial / STATE_FILE).write_text(_sealed({"step": step, "files": _digests(partial)}))
            _sync(partial / STATE_FILE)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(self.folder)
        except OSError as error:
            raise RunError(f"checkpoint {target} could not be written: {error}") from error
        for step_folder in self._complete()[: -self.keep]:
            shutil.rmtree(step_folder)

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the newest checkpoint that is as it was written, or None where there is no checkpoint.

        Raises:
            RunError: there are some, and all are broken.
        """
        problem = None
        for folder in reversed(self._complete()):
            try:
                return _verified(folder), folder
            except RunError as error:
                log.warning("%s; the one before it is taken", error)
                problem = error
        if problem:
            raise RunError(f"no checkpoint in {self.folder} is whole ({problem}); remove them to start anew")
        return None

    def _complete(self) -> list[Path]:
        found = [p for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d{6,}", p.name)]
        return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def _verified(folder: Path) -> int:
    """The step of a checkpoint; RunError where one of its files is not as it was written."""
    try:
        text = (folder / STATE_FILE).read_text()
        state = json.loads(text)
        whole = text == _sealed({"step": state["step"], "files": state["files"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the state of a run, found: {error}") from error
    if not whole:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the bytes that were written, found others")
    found = _digests(folder)
    for name, digest in state["files"].items():
        if name not in found:
            raise RunError(f"checkpoint {folder / name}: expected this file, found none")
        if found[name] != digest:
            raise RunError(f"checkpoint {folder / name}: expected the bytes that were written, found others")
    return state["step"]


def _digests(folder: Path) -> dict[str, str]:
    """XXH3 (64 bits) of every file, by its path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / STATE_FILE)
    return {file.relative_to(folder).as_posix(): _digest(file) for file in files}


def _digest(file: Path) -> str:
    digest = xxhash.xxh3_64()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _sealed(state: dict[str, Any]) -> str:
    """A state as text that tells whether it was changed."""
    text = json.dumps(state)
    return json.dumps({**state, "seal": xxhash.xxh3_64_hexdigest(text.encode())})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
