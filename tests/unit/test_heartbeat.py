"""What a process says of itself while it works."""

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
    """One that beats twenty times a second."""
    monkeypatch.setattr(module, "PERIOD_S", 0.05)
    made = Heartbeat()
    yield made
    made.stop()


def seen(folder: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first heartbeat of the one actor of a folder that is as it should be."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = read_heartbeats(folder)
        if found and holds(found[0]):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(found)


def test_a_pulse_says_what_is_done_and_since_when(tmp_path: Path, heartbeat: Heartbeat) -> None:
    heartbeat.start(tmp_path, "rollout-3", "first")
    idle = seen(tmp_path, lambda p: p["state"] == "idle")
    assert (idle["actor"], idle["kind"], idle["run"]) == ("rollout-3", "rollout", "first")
    assert idle["queue"] is idle["weight_version"] is idle["step"] is None
    assert idle["memory_bytes"] > 2**20
    before = time.time()
    with heartbeat.busy("stream", queue=16), heartbeat.busy("receive"):
        heartbeat.weight_version = 7
        busy = seen(tmp_path, lambda p: p["state"] == "stream + receive")
        assert before <= busy["since"] <= busy["time"] <= time.time()
        assert (busy["queue"], busy["weight_version"], busy["step"]) == (16, 7, 7)
    assert seen(tmp_path, lambda p: p["state"] == "idle")["since"] > busy["since"]


def test_rate_and_idle_share_are_those_of_the_last_minute(
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
    assert seen(tmp_path, lambda p: p["idle"] == 1)["rate"] == 0


def test_threads_may_be_busy_at_once(tmp_path: Path, heartbeat: Heartbeat) -> None:
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


def test_a_disk_that_refuses_pulses_fails_nobody_and_is_tried_again(tmp_path: Path, heartbeat: Heartbeat) -> None:
    folder = tmp_path / "run"
    heartbeat.start(folder, "reward-0", "first")
    time.sleep(0.2)
    assert not folder.exists()
    made = tmp_path / "made"
    made.mkdir()
    (made / "actors").write_text("in the way")
    made.rename(folder)
    time.sleep(0.2)
    (folder / "actors").unlink()
    assert seen(folder, lambda p: True)["actor"] == "reward-0"


def test_the_last_pulse_tells_how_it_ended(tmp_path: Path, heartbeat: Heartbeat) -> None:
    heartbeat.start(tmp_path, "driver", "first")
    heartbeat.stop("failed")
    (found,) = read_heartbeats(tmp_path)
    assert found["state"] == "failed"
    assert not silent(found, time.time())
    assert silent(found, time.time() + 11)


def test_every_pulse_is_told_to_whoever_asked(tmp_path: Path, heartbeat: Heartbeat) -> None:
    told: list[dict[str, Any]] = []
    heartbeat.start(tmp_path, "sbert-0", "first", told.append)
    seen(tmp_path, lambda p: len(told) > 2)
    assert {p["actor"] for p in told} == {"sbert-0"}


def test_the_driver_comes_first_and_the_replaced_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "actors").mkdir()
    for name in ("rollout-10", "rollout-9", "driver", "learner-0"):
        text = json.dumps({"actor": name, "kind": name.split("-")[0]})
        (tmp_path / "actors" / f"{name}.json").write_text(text)
    assert [p["actor"] for p in read_heartbeats(tmp_path)] == ["driver", "learner-0", "rollout-9", "rollout-10"]
    remove_heartbeats(tmp_path, "rollout-9")
    assert [p["actor"] for p in read_heartbeats(tmp_path)] == ["driver", "learner-0", "rollout-10"]
    remove_heartbeats(tmp_path)
    assert read_heartbeats(tmp_path) == []


def test_a_loop_is_in_its_step_until_it_ends(heartbeat: Heartbeat) -> None:
    for step in heartbeat.steps(3, 5):
        assert heartbeat.step == step
        assert heartbeat.step_began is not None
    assert (heartbeat.step, heartbeat.step_began) == (5, None)
