"""A run on Ray as it is watched: heartbeats, logs, a trace and the table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.observability.heartbeat import read_heartbeats
from tests.system.runs import COMMAND, environment, train

pytestmark = pytest.mark.slow
STEPS = 3
ACTORS = {"driver": "driver", "learner-0": "learner", "reward-0": "reward", "rollout-0": "rollout", "sbert-0": "sbert"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all kinds of actors."""
    runs = tmp_path_factory.mktemp("runs")
    settings = ("data.stages=[]", "rollout.prompts_per_step=12", "run.trace_steps=[2]", "run.log_level=debug")
    return train(runs, "watched", STEPS, *settings)


def test_every_actor_has_a_pulse(run: Path) -> None:
    heartbeats = {heartbeat["actor"]: heartbeat for heartbeat in read_heartbeats(run)}
    assert {actor: heartbeat["kind"] for actor, heartbeat in heartbeats.items()} == ACTORS
    assert len({heartbeat["pid"] for heartbeat in heartbeats.values()}) == len(ACTORS)
    assert all(heartbeat["run"] == "watched" and heartbeat["memory_bytes"] > 2**20 for heartbeat in heartbeats.values())
    assert heartbeats["driver"]["state"] == "ended"
    for actor in ("learner-0", "rollout-0"):
        assert heartbeats[actor]["weight_version"] >= STEPS - 1
        assert 0 < heartbeats[actor]["idle"] < 1
        assert heartbeats[actor]["rate"] > 0


def test_every_line_of_every_log_has_run_step_and_actor(run: Path) -> None:
    logs = {file.stem: [json.loads(line) for line in file.open()] for file in (run / "logs").iterdir()}
    assert set(logs) == set(ACTORS)
    for actor, lines in logs.items():
        assert all((line["run"], line["actor"]) == ("watched", actor) and "step" in line for line in lines)
        assert lines[0]["message"] in ("started", "the run starts")
    for actor in ("learner-0", "rollout-0"):
        versions = [
            line["step"] for line in logs[actor] if line["message"] == f"holds weights of version {line['step']}"
        ]
        assert versions == list(range(STEPS + 1))
    assert {line["step"] for line in logs["reward-0"][1:]} == set(range(STEPS))
    assert (logs["driver"][-1]["message"], logs["driver"][-1]["step"]) == ("the run has ended", STEPS)


def test_a_trace_has_the_parts_of_the_driver_and_the_tasks_of_actors(run: Path) -> None:
    trace = json.loads((run / "trace-step-000002.json").read_text())["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in trace if event["ph"] == "M"}
    spans: dict[str, dict[str, Any]] = {actor: {} for actor in names.values()}
    for event in (event for event in trace if event["ph"] == "X"):
        spans[names[event["pid"]]][event["name"]] = event
    step, part, task = spans["driver"]["step 2"], spans["driver"]["learner"], spans["learner-0"]["step"]
    assert step["ts"] <= part["ts"] <= task["ts"]
    assert task["ts"] + task["dur"] <= part["ts"] + part["dur"] <= step["ts"] + step["dur"]
    assert {"stream", "receive"} <= set(spans["rollout-0"])
    assert "score" in spans["reward-0"]


def test_top_shows_all_actors(run: Path) -> None:
    command = [COMMAND, "top", str(run), "--once"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"watched  step {STEPS}/{STEPS}  reward ")
    assert {line.strip("│").split("│")[0].strip() for line in lines if line.startswith("│")} == set(ACTORS)
