"""Timeline of actor calls, from Ray's task events."""

from __future__ import annotations

import time

import ray

from geovlm_ray.core.interfaces import Span

TASK = "task::"
ACTOR_ID_CHARACTERS = 32
"""Length of the suffix of a task ID that is the actor ID."""
REPORT_INTERVAL_S = 1.0
"""Seconds between reports of finished tasks by Ray's workers; `ray.timeline` waits for the same time again."""


class RayTimeline:
    """Finished tasks, keyed by actor name (a `Timeline`); Ray keeps the last 100,000 tasks of a cluster."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._names: dict[str, str] = {}

    def __call__(self, begun: float, ended: float) -> dict[str, list[Span]]:
        """Tasks that ran between two times, in seconds since the epoch by the clocks of the actors' nodes."""
        time.sleep(REPORT_INTERVAL_S)
        spans: dict[str, list[Span]] = {}
        tasks = [event for event in ray.timeline() if event["cat"].startswith(TASK)]
        actors = [event["args"]["task_id"][-ACTOR_ID_CHARACTERS:] for event in tasks]
        for actor, event in zip(actors, tasks, strict=True):
            # Only constructor events have the actor name, task::NAME:CLASS.__init__; others are task::CLASS.METHOD.
            name, separator, _ = event["cat"].removeprefix(TASK).rpartition(":")
            if separator:
                self._names[actor] = name.removeprefix(f"{self.run}-")
        for actor, event in zip(actors, tasks, strict=True):
            span = Span(event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
            if actor in self._names and span.begun < ended and span.ended > begun:
                spans.setdefault(self._names[actor], []).append(span)
        return dict(sorted(spans.items()))
