"""Log files of the processes of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.observability import logs
from geovlm_ray.observability.heartbeat import HEARTBEAT
from geovlm_ray.observability.logs import close_log, log_failure, open_log


@pytest.fixture(autouse=True)
def isolate_logging() -> Iterator[None]:
    """Isolate tests: reset the heartbeat, and restore log levels and handlers."""
    HEARTBEAT._reset()
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    close_log()
    HEARTBEAT._reset()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(folder: Path, actor: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / f"{actor}.jsonl").read_text().splitlines()]


def test_every_line_holds_actor_and_step(tmp_path: Path) -> None:
    open_log(tmp_path, "first", "rollout-0", "info")
    logging.getLogger("geovlm_ray.training.run").info("begins with %d", 3)
    HEARTBEAT.weight_version = 7
    logging.getLogger("actors.reward").warning("starting a replacement")
    logging.getLogger("someone.else").warning("careful")
    logging.getLogger("someone.else").info("chatter")
    logging.getLogger("geovlm_ray.training.run").debug("detail")
    found = lines(tmp_path, "rollout-0")
    keys = ("level", "run", "step", "actor", "logger", "message")
    assert [tuple(line[key] for key in keys) for line in found] == [
        ("INFO", "first", None, "rollout-0", "geovlm_ray.training.run", "begins with 3"),
        ("WARNING", "first", 7, "rollout-0", "actors.reward", "starting a replacement"),
        ("WARNING", "first", 7, "rollout-0", "someone.else", "careful"),
    ]
    assert all(line["time"].endswith("+00:00") for line in found)


def test_debug_level_writes_debug_lines(tmp_path: Path) -> None:
    open_log(tmp_path, "first", "rollout-0", "debug")
    logging.getLogger("actors.tracing").debug("holds weights of version 3")
    assert [line["level"] for line in lines(tmp_path, "rollout-0")] == ["DEBUG"]


def test_exception_is_written_to_the_log_but_not_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_log(tmp_path, "first", "learner-0", "info")
    try:
        raise ValueError("too large")
    except ValueError:
        log_failure(logging.getLogger("actors.learner"), "step failed")
    (line,) = lines(tmp_path, "learner-0")
    assert (line["level"], line["message"]) == ("ERROR", "step failed")
    assert "ValueError: too large" in line["exception"]
    assert "too large" not in capsys.readouterr().err


def test_secrets_from_the_environment_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdef0123456789")
    open_log(tmp_path, "first", "driver", "info")
    logger = logging.getLogger("geovlm_ray")
    try:
        raise ValueError("abcdef0123456789 was refused")
    except ValueError:
        logger.exception("with %s from %s", "abcdef0123456789", "http://me:hidden@proxy:3128/x")
    written = (tmp_path / "logs" / "driver.jsonl").read_text()
    assert not any(secret in written for secret in ("abcdef0123456789", "hidden"))
    assert lines(tmp_path, "driver")[0]["message"] == "with [WANDB_API_KEY] from http://me:[password]@proxy:3128/x"


def test_log_is_rotated_at_the_maximum_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    open_log(tmp_path, "first", "driver", "info")
    for i in range(100):
        logging.getLogger("geovlm_ray").info("line %d", i)
    files = sorted(f.name for f in (tmp_path / "logs").iterdir())
    assert files == ["driver.jsonl", "driver.jsonl.1"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 2000 for name in files)
    assert lines(tmp_path, "driver")[-1]["message"] == "line 99"


def test_reopened_log_writes_each_line_once(tmp_path: Path) -> None:
    open_log(tmp_path, "first", "driver", "info")
    open_log(tmp_path, "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("once")
    assert len(lines(tmp_path, "driver")) == 1


def test_log_write_errors_are_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_log(tmp_path / "nowhere", "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("lost")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "driver.jsonl").symlink_to("/dev/full")
    open_log(tmp_path, "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("lost")
    assert "Traceback" not in capsys.readouterr().err
