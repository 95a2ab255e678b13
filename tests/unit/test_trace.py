"""Chrome traces of training steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from geovlm_ray.observability.heartbeat import Heartbeat, Span
from geovlm_ray.observability.trace import Tracer, events


def processes(trace: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Spans by process name."""
    names = {event["pid"]: event["args"]["name"] for event in trace if event["ph"] == "M"}
    spans = [event for event in trace if event["ph"] == "X"]
    return {name: [span for span in spans if span["pid"] == pid] for pid, name in names.items()}


def nested(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    return outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


def test_trace_is_written_for_the_requested_steps(tmp_path: Path) -> None:
    heartbeat = Heartbeat()
    intervals: list[tuple[float, float]] = []

    def timeline(start: float, end: float) -> dict[str, list[Span]]:
        intervals.append((start, end))
        return {"rollout-0": [Span("stream", start, end)], "learner-0": []}

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
    ((start, end),) = intervals
    assert abs(found["rollout-0"][0]["ts"] - start * 1e6) < 1
    assert 0.02 <= end - start <= time.time() - start
    assert found["learner-0"] == []


def test_overlapping_spans_of_an_actor_get_different_thread_ids() -> None:
    spans = [Span("b", 1, 4), Span("a", 0, 2), Span("in b", 2.5, 3), Span("after", 4, 5)]
    found = {span["name"]: span["tid"] for span in processes(events({"rollout-0": spans}))["rollout-0"]}
    assert found == {"a": 0, "b": 1, "in b": 0, "after": 0}
