"""Checkpoints of a run: written to a temporary folder, synced, renamed; verified before a run resumes from one."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.core.files import (
    digest_of,
    grant_umask_access,
    read_object,
    read_text,
    text_digest,
    write_atomically,
)
from geovlm_ray.core.interfaces import Saver
from geovlm_ray.core.validation import validated
from geovlm_ray.training.checkpoint_mirror import CheckpointMirror

log = logging.getLogger(__name__)

STATE_FILE = "run_state.json"
BEST_FILE = "best.json"
NAME = re.compile(r"step-\d{6,}")
PARTIAL = ".partial-"
POLL_S = 0.2
"""Interval in seconds at which the writer polls `Saver.saved`."""


class _Best(BaseModel):
    """The best step of a benchmark, and its score."""

    step: int
    value: float


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace ``folder`` by a new one that ``write`` fills, and sync its files.

    Raises:
        OSError: writing failed; the folder is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write(folder)
        grant_umask_access(folder)
        for file in folder.rglob("*"):
            _sync(file)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def open_mirror(url: str | None, run: str) -> CheckpointMirror | None:
    """The mirror of a run's checkpoints, or None without a URL; raises ConfigError for one that fsspec cannot open."""
    return CheckpointMirror(f"{url}/{run}", STATE_FILE) if url else None


class CheckpointFolder:
    """Keeps a run's latest ``keep`` checkpoints, the best by the metric ``best``, and the best of each benchmark.

    ``best.json`` holds the best step and score of every benchmark that `record_scores` received. With a ``mirror``,
    every checkpoint is copied there, and `latest` fetches one that is newer than all local ones.
    """

    def __init__(
        self, folder: Path, keep: int, best: str | None = None, mirror: CheckpointMirror | None = None
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.best = best
        self.mirror = mirror
        self._protected: set[int] = set()
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        """Let ``saver`` write the checkpoint of ``step``; returns once ``saver`` has started, `finish` waits for it.

        The checkpoint is renamed into place when it is complete. A step whose metrics lack ``best`` (such as the reward
        of a task without prompts in the step) cannot be the best one.

        Raises:
            RunError: this or the previous checkpoint could not be written.
        """
        self.finish()
        value = metrics.get(self.best) if self.best else None
        if self.best and value is None:
            known = ", ".join(sorted(metrics))
            log.warning("checkpoint.best: step %d has no metric %s, only %s", step, self.best, known)
        with self._wrap_errors(step):
            partial = self._partial()
            with _removed_on_error(partial):
                saver.save(partial)
        self._writing = self._thread.submit(self._complete, step, value, partial, saver)

    def protect(self, step: int) -> None:
        """Keep the checkpoint of a step until its scores are recorded."""
        self._protected.add(step)

    def restore_scores(self, scores_by_step: Mapping[int, Mapping[str, float]]) -> None:
        """Rebuild ``best.json`` from the scores of these steps; steps without a checkpoint are ignored."""
        (self.folder / BEST_FILE).unlink(missing_ok=True)
        for step in sorted(scores_by_step):
            if (self.folder / _name(step)).is_dir():
                self.record_scores(step, scores_by_step[step])

    def record_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Record the scores of a step by benchmark, whose best checkpoint is kept; raises DataError if that fails."""
        best = self._best_by_benchmark()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, value in scores.items():
            if name not in best or value >= best[name].value:
                best[name] = _Best(step=step, value=value)
        content = {name: each.model_dump() for name, each in best.items()}
        write_atomically(self.folder / BEST_FILE, json.dumps(content, indent=2) + "\n")
        self._protected.discard(step)

    def finish(self) -> None:
        """Wait until the last checkpoint is written and mirrored; raises RunError if that failed."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def abandon(self) -> None:
        """Wait for the pending checkpoint; only log a failure, since its saver may already be shut down."""
        try:
            self.finish()
        except RunError as error:
            log.warning("%s", error)

    def remove_partial(self) -> None:
        """Remove what killed processes have written of checkpoints."""
        for partial in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the latest intact checkpoint, if any; removes partial ones of killed processes.

        Raises:
            RunError: all checkpoints are corrupt, one cannot be copied from the mirror, or that is not reachable.
        """
        self.remove_partial()
        problem = None
        remote = filter(NAME.fullmatch, self.mirror.names() if self.mirror else ())
        for name in sorted({*remote, *self._names()}, key=_step, reverse=True):
            target = self.folder / name
            try:
                if self.mirror and not target.is_dir():
                    partial = self._partial()
                    with _removed_on_error(partial):
                        self.mirror.fetch(name, partial)
                        verified_state(partial)
                        partial.rename(target)
                return verified_state(target)["step"], target
            except RunError as error:
                log.warning("%s; falling back to the previous checkpoint", error)
                problem = error
        if problem:
            raise RunError(f"no checkpoint in {self.folder} is intact ({problem}); remove them to start from scratch")
        return None

    def describe_progress(self, steps: int) -> str:
        """Message for an interrupted training of ``steps`` steps: the saved step and how to resume."""
        names = self._names()
        if not names:
            return "interrupted before the first checkpoint; run the same command to start again"
        step, folder = _step(names[-1]), self.folder / names[-1]
        return f"interrupted at step {step} of {steps}, saved in {folder}; run the same command to resume"

    def _complete(self, step: int, value: float | None, partial: Path, saver: Saver) -> None:
        target = self.folder / _name(step)
        with self._wrap_errors(step), _removed_on_error(partial):
            while not saver.saved():
                time.sleep(POLL_S)
            for file in partial.rglob("*"):
                _sync(file)
            state = {"step": step, "value": value, "files": _digests(partial)}
            (partial / STATE_FILE).write_text(_with_checksum(state))
            _sync(partial / STATE_FILE)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(self.folder)
            names = self._names()
            old = {*names} - {*names[-self.keep :], *self._best(), *self._evaluated(names)}
            for name in old:
                shutil.rmtree(self.folder / name)
        if self.mirror:
            self.mirror.put(target)
            # Checkpoints that exist only in the mirror come from another machine and may be the best: keep them.
            for name in old.intersection(self.mirror.names()):
                self.mirror.remove(name)

    @contextmanager
    def _wrap_errors(self, step: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"checkpoint {self.folder / _name(step)} could not be written: {error}") from error

    def _partial(self) -> Path:
        """A new uniquely named folder: an orphaned writer of an earlier process cannot write into it."""
        folder = self.folder / f"{PARTIAL}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def _evaluated(self, names: Sequence[str]) -> Collection[str]:
        """The best checkpoints of the benchmarks, and those whose scores are not recorded; all if they are unknown."""
        try:
            return {
                _name(step) for step in self._protected | {best.step for best in self._best_by_benchmark().values()}
            }
        except DataError as error:
            log.warning("%s; no checkpoint is removed", error)
            return names

    def _best_by_benchmark(self) -> dict[str, _Best]:
        file = self.folder / BEST_FILE
        return validated(TypeAdapter(dict[str, _Best]), read_object(file), file) if file.is_file() else {}

    def _best(self) -> list[str]:
        """The checkpoint with the largest ``value``, the latest among equals; empty if none has a value."""
        values = {}
        for name in self._names():
            try:
                values[name] = _state(self.folder / name).get("value")
            except RunError as error:
                log.warning("%s", error)
        known = {name: value for name, value in values.items() if value is not None}
        return [max(known, key=lambda name: (known[name], _step(name)))] if known else []

    def _names(self) -> list[str]:
        """Names of the local checkpoints, the latest last."""
        return sorted((p.name for p in self.folder.glob("step-*") if NAME.fullmatch(p.name) and p.is_dir()), key=_step)


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a folder if an error is raised, so that what was written does not take up the disk."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))


def _state(folder: Path) -> dict[str, Any]:
    """Read and verify the state file of a checkpoint; raises RunError if it is corrupt."""
    try:
        text = read_text(folder / STATE_FILE)
        state = json.loads(text)
        intact = text == _with_checksum({key: state[key] for key in ("step", "value", "files")})
    except (DataError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the state of a run, found: {error}") from error
    if not intact:
        raise RunError(f"checkpoint {folder / STATE_FILE}: expected the checksum recorded at saving, found another")
    return state


def verified_state(folder: Path) -> dict[str, Any]:
    """Read the state file and verify all files of a checkpoint; raises RunError if one is missing or corrupt."""
    state = _state(folder)
    found = _digests(folder)
    for name, digest in state["files"].items():
        if name not in found:
            raise RunError(f"checkpoint {folder / name}: expected this file, found none")
        if found[name] != digest:
            raise RunError(f"checkpoint {folder / name}: expected checksum {digest}, found {found[name]}")
    return state


def _digests(folder: Path) -> dict[str, str]:
    """64-bit XXH3 of every file except the state file, keyed by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / STATE_FILE)
    return {file.relative_to(folder).as_posix(): digest_of([file]) for file in files}


def _with_checksum(state: dict[str, Any]) -> str:
    """The JSON of a state with its own checksum, which reveals later changes."""
    text = json.dumps(state)
    return json.dumps({**state, "seal": text_digest(text)})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
