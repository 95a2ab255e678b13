"""Per-actor logs in the run directory, as JSON lines."""

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
"""Size at which a log file is rotated to ``ACTOR.jsonl.1``, replacing the previous one."""


class ActorLog(RotatingFileHandler):
    """Log records of this package, and warnings of all other loggers; lines that cannot be written are dropped."""

    def __init__(self, folder: Path, run: str, actor: str) -> None:
        super().__init__(
            folder / FOLDER / f"{actor}.jsonl", maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        self.run = run
        self.actor = actor

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        return record.levelno >= logging.WARNING or record.name.split(".")[0] in OURS

    def format(self, record: logging.LogRecord) -> str:
        """The JSON line of a record, with secrets from the environment and URL passwords redacted."""
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
        """Ignore write errors: a full disk must not stop the run."""


def open_log(folder: Path, run: str, actor: str, level: str) -> None:
    """Log this process into a run directory, if it exists, replacing any earlier log of the process."""
    close_log()
    with suppress(OSError):
        (folder / FOLDER).mkdir(exist_ok=True)
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        # Once root has a handler, warnings no longer reach the terminal through logging.lastResort: add it explicitly.
        root.addHandler(logging.lastResort)
    root.addHandler(ActorLog(folder, run, actor))
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def close_log() -> None:
    """Close this process's log."""
    root = logging.getLogger()
    for handler in _open_handlers():
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def log_failure(logger: logging.Logger, message: str) -> None:
    """Log the current exception to the file only; whoever catches it prints it."""
    for handler in _open_handlers():
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, message, (), sys.exc_info()))


def _open_handlers() -> list[ActorLog]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, ActorLog)]
