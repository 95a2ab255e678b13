"""Heartbeats of the processes of a run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.observability import heartbeat as module
from geovlm_ray.observability.heartbeat import Heartbeat, read_heartbeats, remove_heartbeats, silent


@pytest.fixture
def heartbeat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heartbeat]:
    """A heartbeat that is written twenty times a second."""
    monkeypatch.setattr(module, "PERIOD_S", 0.05)
    instance = Heartbeat()
    yield instance
    instance.stop()


def wait_for(folder: Path, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a heartbeat of the folder's only actor that fulfils a condition."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = read_heartbeats(folder)
        if found and condition(found[0]):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(found)


def test_heartbeat_reports_current_calls_and_when_they_began(tmp_path: Path, heartbeat: Heartbeat) -> None:
    heartbeat.start(tmp_path, "rollout-3", "first")
    idle = wait_for(tmp_path, lambda p: p["state"] == "idle")
    assert (idle["actor"], idle["kind"], idle["run"]) == ("rollout-3", "rollout", "first")
    assert idle["queue"] is idle["weight_version"] is idle["step"] is None
    assert idle["memory_bytes"] > 2**20
    before = time.time()
    with heartbeat.busy("stream", queue=16), heartbeat.busy("receive"):
        heartbeat.weight_version = 7
        busy = wait_for(tmp_path, lambda p: p["state"] == "stream + receive")
        assert before <= busy["since"] <= busy["time"] <= time.time()
        assert (busy["queue"], busy["weight_version"], busy["step"]) == (16, 7, 7)
    assert wait_for(tmp_path, lambda p: p["state"] == "idle")["since"] > busy["since"]


def test_rate_and_idle_fraction_cover_the_sliding_window(
    tmp_path: Path, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_S", 0.5)
    heartbeat.start(tmp_path, "learner-0", "first")
    with heartbeat.busy("step"):
        time.sleep(0.6)
        heartbeat.count(1000)
        found = heartbeat.snapshot()
        assert found["idle"] < 0.1
        assert found["unit"] == "tokens"
        assert 1000 / 0.8 < found["rate"] < 1000 / 0.3
    assert wait_for(tmp_path, lambda p: p["idle"] == 1)["rate"] == 0


def test_calls_of_concurrent_threads_are_tracked(tmp_path: Path, heartbeat: Heartbeat) -> None:
    def work() -> None:
        for _ in range(500):
            with heartbeat.busy("call", 1):
                heartbeat.count(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = heartbeat.snapshot()
    assert (found["state"], found["queue"]) == ("idle", None)
    assert heartbeat._count == 2000


def test_write_errors_are_ignored_and_retried(tmp_path: Path, heartbeat: Heartbeat) -> None:
    folder = tmp_path / "run"
    heartbeat.start(folder, "reward-0", "first")
    time.sleep(0.2)
    assert not folder.exists()
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "actors").write_text("a file instead of a folder")
    blocked.rename(folder)
    time.sleep(0.2)
    (folder / "actors").unlink()
    assert wait_for(folder, lambda p: True)["actor"] == "reward-0"


def test_last_heartbeat_holds_the_final_state(tmp_path: Path, heartbeat: Heartbeat) -> None:
    heartbeat.start(tmp_path, "driver", "first")
    heartbeat.stop("failed")
    (found,) = read_heartbeats(tmp_path)
    assert found["state"] == "failed"
    assert not silent(found, time.time())
    assert silent(found, time.time() + 11)


def test_callback_receives_every_heartbeat(tmp_path: Path, heartbeat: Heartbeat) -> None:
    received: list[dict[str, Any]] = []
    heartbeat.start(tmp_path, "sbert-0", "first", received.append)
    wait_for(tmp_path, lambda p: len(received) > 2)
    assert {p["actor"] for p in received} == {"sbert-0"}


def test_heartbeats_list_the_driver_first_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "actors").mkdir()
    for name in ("rollout-10", "rollout-9", "driver", "learner-0"):
        text = json.dumps({**Heartbeat().snapshot(), "actor": name, "kind": name.split("-")[0]})
        (tmp_path / "actors" / f"{name}.json").write_text(text)
    assert [p["actor"] for p in read_heartbeats(tmp_path)] == ["driver", "learner-0", "rollout-9", "rollout-10"]
    remove_heartbeats(tmp_path, "rollout-9")
    assert [p["actor"] for p in read_heartbeats(tmp_path)] == ["driver", "learner-0", "rollout-10"]
    remove_heartbeats(tmp_path)
    assert read_heartbeats(tmp_path) == []


def test_steps_track_the_current_step_until_the_loop_ends(heartbeat: Heartbeat) -> None:
    for step in heartbeat.steps(3, 5):
        assert heartbeat.step == step
        assert heartbeat.step_began is not None
    assert (heartbeat.step, heartbeat.step_began) == (5, None)
