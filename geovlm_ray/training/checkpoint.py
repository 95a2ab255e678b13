"""Checkpoints of a run: written to a temporary name, synced, then renamed; verified before a run goes on from one."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import digest_of, grant_umask_access, read_object, write_atomically
from geovlm_ray.core.interfaces import Saver
from geovlm_ray.training.checkpoint_mirror import CheckpointMirror

log = logging.getLogger(__name__)

STATE_FILE = "run_state.json"
BEST_FILE = "best.json"
NAME = re.compile(r"step-\d{6,}")
PARTIAL = ".partial-"
POLL_S = 0.2
"""Seconds between two questions whether a checkpoint is written."""


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, in place of any that is there, and see that it is on the disk.

    Raises:
        OSError: the disk refused it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    grant_umask_access(folder)
    for file in folder.rglob("*"):
        _sync(file)


def open_mirror(url: str | None, run: str) -> CheckpointMirror | None:
    """Where copies of a run's checkpoints are, if anywhere.

    Raises:
        ConfigError: no file system is known for the URL.
    """
    return CheckpointMirror(f"{url}/{run}", STATE_FILE) if url else None


class CheckpointFolder:
    """The newest ``keep`` checkpoints of a run, and the best ones: by the metric ``best``, and by evaluation.

    ``best.json`` says which step was the best by each evaluation, as `judge` was told.
    With a ``mirror`` each is copied there too, and taken from there where it is newer than all that lie here.
    """

    def __init__(
        self, folder: Path, keep: int, best: str | None = None, mirror: CheckpointMirror | None = None
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.best = best
        self.mirror = mirror
        self._held: set[int] = set()
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        """Let ``saver`` fill a folder, which becomes the checkpoint of ``step`` in one rename once all of it is there.

        Returns when ``saver`` has begun; `finish` waits for the rest.

        A step without the metric ``best``, such as that of a task of which it drew nothing, is not the best one.

        Raises:
            RunError: the disk refused it, or the checkpoint before it.
        """
        self.finish()
        value = metrics.get(self.best) if self.best else None
        if self.best and value is None:
            there = ", ".join(sorted(metrics))
            log.warning("checkpoint.best: step %d has no metric %s, only %s", step, self.best, there)
        try:
            partial = self._partial()
            saver.save(partial)
        except OSError as error:
            raise self._refused(step, error) from error
        self._writing = self._thread.submit(self._complete, step, value, partial, saver)

    def hold(self, step: int) -> None:
        """Keep the checkpoint of a step until it is judged."""
        self._held.add(step)

    def rejudge(self, judged: Mapping[int, Mapping[str, float]]) -> None:
        """Forget what was the best; of these steps, those are judged again of which there is a checkpoint."""
        (self.folder / BEST_FILE).unlink(missing_ok=True)
        for step in sorted(judged):
            if (self.folder / _name(step)).is_dir():
                self.judge(step, judged[step])

    def judge(self, step: int, values: Mapping[str, float]) -> None:
        """Take notice of what evaluations of a step gave, by name; of the best of each the checkpoint is kept.

        Raises:
            DataError: it cannot be written down.
        """
        best = self._judged()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            if name not in best or value >= best[name]["value"]:
                best[name] = {"step": step, "value": value}
        write_atomically(self.folder / BEST_FILE, json.dumps(best, indent=2) + "\n")
        self._held.discard(step)

    def finish(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            RunError: the disk refused it, or the mirror.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def abandon(self) -> None:
        """Wait for what is still written, which may fail: who was to write it has been ended."""
        try:
            self.finish()
        except RunError as error:
            log.warning("%s", error)

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the newest checkpoint that is as it was written, or None where there is no checkpoint.

        What earlier processes left half written is removed.

        Raises:
            RunError: there are some, and all are broken; or the mirror cannot be asked.
        """
        for left in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        problem = None
        remote = filter(NAME.fullmatch, self.mirror.names() if self.mirror else ())
        for name in sorted({*remote, *self._names()}, key=_step, reverse=True):
            target = self.folder / name
            try:
                if not target.is_dir():
                    self._fetch(target)
                return _verified(target)["step"], target
            except RunError as error:
                log.warning("%s; the one before it is taken", error)
                problem = error
        if problem:
            raise RunError(f"no checkpoint in {self.folder} is whole ({problem}); remove them to start anew")
        return None

    def where_it_stands(self, steps: int) -> str:
        """One line for whoever interrupted a training of so many steps: how far it is, and how to go on."""
        names = self._names()
        if not names:
            return "interrupted; nothing was learnt yet, the same command starts it again"
        step, folder = _step(names[-1]), self.folder / names[-1]
        return f"interrupted at step {step} of {steps}, saved in {folder}; the same command goes on from there"

    def _complete(self, step: int, value: float | None, partial: Path, saver: Saver) -> None:
        target = self.folder / _name(step)
        try:
            while not saver.saved():
                time.sleep(POLL_S)
            for file in partial.rglob("*"):
                _sync(file)
            (partial / STATE_FILE).write_text(_sealed({"step": step, "value": value, "files": _digests(partial)}))
            _sync(partial / STATE_FILE)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(self.folder)
            old = set(self._names()) - {*self._names()[-self.keep :], *self._best(), *map(_name, self._evaluated())}
            for name in old:
                shutil.rmtree(self.folder / name)
        except OSError as error:
            raise self._refused(step, error) from error
        if self.mirror:
            self.mirror.put(target)
            # What only the mirror has, another machine put there: it may be the best.
            for name in old.intersection(self.mirror.names()):
                self.mirror.remove(name)

    def _refused(self, step: int, error: OSError) -> RunError:
        return RunError(f"checkpoint {self.folder / _name(step)} could not be written: {error}")

    def _fetch(self, target: Path) -> None:
        """Bring a checkpoint from the mirror."""
        assert self.mirror is not None
        partial = self._partial()
        self.mirror.fetch(target.name, partial)
        _verified(partial)
        partial.rename(target)

    def _partial(self) -> Path:
        """A new folder, of which a writer that was cut off from its run, and lives on, knows nothing."""
        folder = self.folder / f"{PARTIAL}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def _evaluated(self) -> set[int]:
        """Steps that are the best by an evaluation, or not yet judged."""
        return {found["step"] for found in self._judged().values()} | self._held

    def _judged(self) -> dict[str, Any]:
        file = self.folder / BEST_FILE
        return read_object(file) if file.is_file() else {}

    def _best(self) -> list[str]:
        """The name of the checkpoint with the largest value, the newest of several; none where none has any."""
        values = {}
        for name in self._names():
            try:
                values[name] = _state(self.folder / name).get("value")
            except RunError as error:
                log.warning("%s", error)
        known = {name: value for name, value in values.items() if value is not None}
        return [max(known, key=lambda name: (known[name], _step(name)))] if known else []

    def _names(self) -> list[str]:
        """Names of the checkpoints that lie here, the newest last."""
        return sorted((p.name for p in self.folder.glob("step-*") if NAME.fullmatch(p.name) and p.is_dir()), key=_step)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))


def _state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; RunError where that is not as it was written."""
    try:
        text = (folder / STATE_FILE).read_text()
        state = json.loads(text)
        whole = text == _sealed({key: state[key] for key in ("step", "value", "files")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the state of a run, found: {error}") from error
    if not whole:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the bytes that were written, found others")
    return state


def _verified(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; RunError where one of its files is not as it was written."""
    state = _state(folder)
    found = _digests(folder)
    for name, digest in state["files"].items():
        if name not in found:
            raise RunError(f"checkpoint {folder / name}: expected this file, found none")
        if found[name] != digest:
            raise RunError(f"checkpoint {folder / name}: expected the bytes that were written, found others")
    return state


def _digests(folder: Path) -> dict[str, str]:
    """XXH3 (64 bits) of every file, by its path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / STATE_FILE)
    return {file.relative_to(folder).as_posix(): digest_of([file]) for file in files}


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
