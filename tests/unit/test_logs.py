"""The log of a process of a run."""

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
def closed() -> Iterator[None]:
    """No test knows of the steps of another; levels and handlers are as before after a test."""
    HEARTBEAT._reset()
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    close_log()
    HEARTBEAT._reset()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(folder: Path, actor: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / f"{actor}.jsonl").read_text().splitlines()]


def test_every_line_says_who_and_in_which_step(tmp_path: Path) -> None:
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


def test_debug_lines_come_when_they_are_asked_for(tmp_path: Path) -> None:
    open_log(tmp_path, "first", "rollout-0", "debug")
    logging.getLogger("actors.tracing").debug("holds weights of version 3")
    assert [line["level"] for line in lines(tmp_path, "rollout-0")] == ["DEBUG"]


def test_an_exception_is_in_the_log_and_not_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_log(tmp_path, "first", "learner-0", "info")
    try:
        raise ValueError("too large")
    except ValueError:
        log_failure(logging.getLogger("actors.learner"), "step failed")
    (line,) = lines(tmp_path, "learner-0")
    assert (line["level"], line["message"]) == ("ERROR", "step failed")
    assert "ValueError: too large" in line["exception"]
    assert "too large" not in capsys.readouterr().err


def test_secrets_of_the_environment_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_log_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    open_log(tmp_path, "first", "driver", "info")
    for i in range(100):
        logging.getLogger("geovlm_ray").info("line %d", i)
    files = sorted(f.name for f in (tmp_path / "logs").iterdir())
    assert files == ["driver.jsonl", "driver.jsonl.1"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 2000 for name in files)
    assert lines(tmp_path, "driver")[-1]["message"] == "line 99"


def test_opening_a_log_again_writes_each_line_once(tmp_path: Path) -> None:
    open_log(tmp_path, "first", "driver", "info")
    open_log(tmp_path, "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("once")
    assert len(lines(tmp_path, "driver")) == 1


def test_a_disk_that_refuses_lines_fails_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_log(tmp_path / "nowhere", "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("lost")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "driver.jsonl").symlink_to("/dev/full")
    open_log(tmp_path, "first", "driver", "info")
    logging.getLogger("geovlm_ray").info("lost")
    assert "Traceback" not in capsys.readouterr().err
