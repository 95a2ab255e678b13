"""Traces of single steps in the Chrome trace event format, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.interfaces import Span, Timeline
from geovlm_ray.observability.heartbeat import HEARTBEAT, Heartbeat


@dataclass(frozen=True)
class Tracer:
    """Metrics callback that writes ``trace-step-NNNNNN.json`` for the selected steps."""

    folder: Path
    steps: Collection[int]
    timeline: Timeline | None = None
    heartbeat: Heartbeat = HEARTBEAT

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """Write the trace of the step that is about to end: the driver's phases and the calls of the actors.

        Raises:
            DataError: the file cannot be written.
        """
        step = int(metrics["step"])
        if step not in self.steps:
            return
        begun, ended = self.heartbeat.step_began or 0.0, time.time()
        phases = [span for span in self.heartbeat.spans if span.begun >= begun]
        lanes = {"driver": [Span(f"step {step}", begun, ended), *phases]}
        if self.timeline is not None:
            lanes |= self.timeline(begun, ended)
        trace = {"traceEvents": events(lanes), "displayTimeUnit": "ms"}
        write_atomically(self.folder / f"trace-step-{step:06d}.json", json.dumps(trace) + "\n")


def events(lanes: Mapping[str, Iterable[Span]]) -> list[dict[str, Any]]:
    """Trace events of spans, which are keyed by process name; times in microseconds since the epoch.

    Spans that overlap without being nested get different thread ids: a thread can only show nested ones.
    """
    trace: list[dict[str, Any]] = []
    for pid, (name, spans) in enumerate(lanes.items(), 1):
        trace.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}})
        threads: list[list[float]] = []
        for span in sorted(spans, key=lambda s: (s.begun, -s.ended)):
            start, duration = span.begun * 1e6, (span.ended - span.begun) * 1e6
            event = {"ph": "X", "name": span.name, "cat": name, "pid": pid, "tid": _thread(span, threads)}
            trace.append({**event, "ts": start, "dur": duration})
    return trace


def _thread(span: Span, threads: list[list[float]]) -> int:
    """Index of the first thread on which a span fits; ``threads`` holds the ends of the open spans of each thread."""
    for number, open_ends in enumerate(threads):
        while open_ends and open_ends[-1] <= span.begun:
            open_ends.pop()
        if not open_ends or span.ended <= open_ends[-1]:
            open_ends.append(span.ended)
            return number
    threads.append([span.ended])
    return len(threads) - 1
