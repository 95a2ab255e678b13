"""Steps as traces."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from geovlm_ray.observability.heartbeat import Heartbeat, Span
from geovlm_ray.observability.trace import Tracer, events


def processes(trace: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The spans of each process, by its name."""
    names = {event["pid"]: event["args"]["name"] for event in trace if event["ph"] == "M"}
    spans = [event for event in trace if event["ph"] == "X"]
    return {name: [span for span in spans if span["pid"] == pid] for pid, name in names.items()}


def nested(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    return outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


def test_a_trace_is_written_of_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    heartbeat = Heartbeat()
    asked: list[tuple[float, float]] = []

    def timeline(begun: float, ended: float) -> dict[str, list[Span]]:
        asked.append((begun, ended))
        return {"rollout-0": [Span("stream", begun, ended)], "learner-0": []}

    tracer = Tracer(tmp_path, [2], timeline, heartbeat)
    for step in heartbeat.steps(0, 3):
        for part in ("rollout", "learner"):
            with heartbeat.busy(part):
                time.sleep(0.01)
        tracer({"step": step + 1})
    (file,) = tmp_path.iterdir()
    assert file.name == "trace-step-000002.json"
    found = processes(json.loads(file.read_text())["traceEvents"])
    step, *parts = found["driver"]
    assert [span["name"] for span in found["driver"]] == ["step 2", "rollout", "learner"]
    assert all(nested(part, step) and part["dur"] >= 10_000 for part in parts)
    assert {span["tid"] for span in found["driver"]} == {0}
    ((begun, ended),) = asked
    assert abs(found["rollout-0"][0]["ts"] - begun * 1e6) < 1
    assert 0.02 <= ended - begun <= time.time() - begun
    assert found["learner-0"] == []


def test_spans_of_one_actor_that_overlap_are_on_different_threads() -> None:
    spans = [Span("b", 1, 4), Span("a", 0, 2), Span("in b", 2.5, 3), Span("after", 4, 5)]
    found = {span["name"]: span["tid"] for span in processes(events({"rollout-0": spans}))["rollout-0"]}
    assert found == {"a": 0, "b": 1, "in b": 0, "after": 0}
