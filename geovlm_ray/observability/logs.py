"""Every actor's log in the run directory: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from geovlm_ray.core.redaction import without_secrets
from geovlm_ray.observability.heartbeat import HEARTBEAT

FOLDER = "logs"
OURS = ("geovlm_ray", "actors")
FILE_BYTES = 10_000_000
"""Size at which a file becomes ``ACTOR.jsonl.1``, in place of the one before it."""


class ActorLog(RotatingFileHandler):
    """All that the package says, and the warnings of everyone else; what the disk refuses is lost."""

    def __init__(self, folder: Path, run: str, actor: str) -> None:
        super().__init__(
            folder / FOLDER / f"{actor}.jsonl", maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        self.run = run
        self.actor = actor

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line belongs here."""
        return record.levelno >= logging.WARNING or record.name.split(".")[0] in OURS

    def format(self, record: logging.LogRecord) -> str:
        """A line, without secrets of the environment and passwords of URLs."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "run": self.run,
            "step": HEARTBEAT.step,
            "actor": self.actor,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = without_secrets(logging.Formatter().formatException(record.exc_info))
        return json.dumps(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Keep quiet: a disk that is full is no reason to stop, and the next line is tried again."""


def open_log(folder: Path, run: str, actor: str, level: str) -> None:
    """Write this process's log into a run directory, if there is one, from now on and in place of any other."""
    close_log()
    with suppress(OSError):
        (folder / FOLDER).mkdir(exist_ok=True)
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        # With a handler of ours, warnings would no longer reach the terminal by themselves.
        root.addHandler(logging.lastResort)
    root.addHandler(ActorLog(folder, run, actor))
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def close_log() -> None:
    """Stop writing this process's log."""
    root = logging.getLogger()
    for handler in _open():
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def log_failure(logger: logging.Logger, message: str) -> None:
    """Write the exception that is under way into the log alone: whoever catches it shows it."""
    for handler in _open():
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, message, (), sys.exc_info()))


def _open() -> list[ActorLog]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, ActorLog)]
