"""Watchdog of steps that exceed run.step_limit_s."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.observability.heartbeat import Heartbeat
from geovlm_ray.observability.watchdog import Watchdog, describe_wait

NOW = 1_000_000.0


def actor(name: str, state: str = "idle", age: float = 1.0, **fields: Any) -> dict[str, Any]:
    """A heartbeat of an actor that has been in one state for 30 s before it."""
    kind = name.split("-", maxsplit=1)[0]
    heartbeat = {"actor": name, "kind": kind, "host": "node", "pid": 12, "state": state, "time": NOW - age}
    figures = {"queue": None, "weight_version": None, "rate": 0.0, "unit": None, "idle": 1.0, "memory_bytes": 1}
    return {**heartbeat, **figures, "since": NOW - age - 30, **fields}


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_in_the_learner(heartbeat: Heartbeat, folder: Path) -> None:
    with heartbeat.busy("learner"):
        wait_until(lambda: list(folder.glob("hang-*")))


def test_step_over_the_limit_is_reported_once_and_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "actors").mkdir()
    learner = actor("learner-0", "step", queue=16, weight_version=4)
    learner |= {"time": time.time(), "since": time.time() - 30}
    (tmp_path / "actors" / "learner-0.json").write_text(json.dumps(learner))
    heartbeat = Heartbeat()
    watchdog = Watchdog(tmp_path, 0.2, heartbeat)
    with caplog.at_level(logging.WARNING):
        for step in heartbeat.steps(3, 6):
            if step == 4:
                wait_in_the_learner(heartbeat, tmp_path)
        wait_until(lambda: caplog.records)
    watchdog.close()
    (file,) = tmp_path.glob("hang-*")
    assert file.name == "hang-step-000005.txt"
    text = file.read_text()
    assert "step 5 has taken" in text
    assert "The driver is waiting for learner" in text
    assert "learner-0 on node, process 12: step, since" in text
    assert "queue 16, weight version 4" in text
    assert "Blocked by learner-0 (step)." in text
    assert "Thread MainThread:" in text
    assert "in wait_in_the_learner" in text
    assert len(caplog.records) == 1
    assert str(file) in caplog.messages[0]
    assert "run.step_limit_s=0.2" in caplog.messages[0]


def test_no_report_outside_the_training_loop(tmp_path: Path) -> None:
    heartbeat = Heartbeat()
    watchdog = Watchdog(tmp_path, 0.1, heartbeat)
    with heartbeat.busy("evaluation"):
        time.sleep(0.4)
    watchdog.close()
    assert list(tmp_path.iterdir()) == []


def test_failed_report_write_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = Heartbeat()
    watchdog = Watchdog(tmp_path / "nowhere", 0.1, heartbeat)
    for _ in heartbeat.steps(0, 1):
        wait_until(lambda: "cannot be written" in caplog.text)
    watchdog.close()
    assert "hang-step-000001.txt cannot be written" in caplog.text
    assert watchdog._thread not in threading.enumerate()


@pytest.mark.parametrize(
    ("phase", "actors", "message"),
    [
        ("rollout", [actor("rollout-0", "stream"), actor("rollout-1")], "Blocked by rollout-0 (stream)."),
        ("rollout", [actor("rollout-0", age=50), actor("learner-0", "save")], "Blocked by rollout-0 (silent)."),
        (
            "rollout",
            [actor("rollout-0"), actor("reward-1", "score"), actor("sbert-0", "encode")],
            "Blocked by reward-1 (score), sbert-0 (encode).",
        ),
        ("learner", [actor("rollout-0", "stream"), actor("learner-0")], "No actor involved in this phase is busy"),
        ("learner", [], "all components run in the driver process"),
        ("idle", [actor("learner-0")], "is in no phase of the loop"),
    ],
)
def test_report_names_the_blocking_actors(phase: str, actors: list[dict[str, Any]], message: str) -> None:
    driver = actor("driver", phase)
    assert message in describe_wait(driver, actors, NOW)


def test_silent_actor_is_shown_with_its_previous_state() -> None:
    (line,) = describe_wait(actor("driver", "sync"), [actor("rollout-2", "receive", age=100)], NOW).splitlines()[1:2]
    assert "silent, since" in line
    assert "(100 s); before that receive, since" in line
    assert "(30 s)" in line
