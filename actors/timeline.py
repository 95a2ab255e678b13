"""What every actor of a run did when, as Ray knows it."""

from __future__ import annotations

import time

import ray

from geovlm_ray.core.interfaces import Span

TASK = "task::"
ACTOR_ID_CHARACTERS = 32
"""The last so many of a task's id are its actor's."""
REPORTED_S = 1.0
"""Seconds between two reports of Ray's workers of tasks that have ended; `ray.timeline` waits as long again."""


class RayTimeline:
    """The ended tasks of actors, by the actors' names (`Timeline`); Ray keeps the last 100,000 of a cluster."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._names: dict[str, str] = {}

    def __call__(self, begun: float, ended: float) -> dict[str, list[Span]]:
        """Those that ran between two moments, in seconds since the epoch by the clocks of the actors' machines."""
        time.sleep(REPORTED_S)
        found: dict[str, list[Span]] = {}
        tasks = [event for event in ray.timeline() if event["cat"].startswith(TASK)]
        actors = [event["args"]["task_id"][-ACTOR_ID_CHARACTERS:] for event in tasks]
        for actor, event in zip(actors, tasks, strict=True):
            # Ray names the actor at its constructor alone: task::NAME:CLASS.__init__, and elsewhere task::CLASS.METHOD.
            name, named, _ = event["cat"].removeprefix(TASK).rpartition(":")
            if named:
                self._names[actor] = name.removeprefix(f"{self.run}-")
        for actor, event in zip(actors, tasks, strict=True):
            span = Span(event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
            if actor in self._names and span.begun < ended and span.ended > begun:
                found.setdefault(self._names[actor], []).append(span)
        return dict(sorted(found.items()))
