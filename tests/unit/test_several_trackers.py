"""Several experiment trackers of a run, one of which fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.observability.trackers.base import ShownCompletion
from geovlm_ray.observability.trackers.several import Trackers


class Remembering:
    """A tracker that keeps what it is given."""

    def __init__(self, config: Config) -> None:
        self.steps: list[int] = []
        self.failed: bool | None = None

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None: ...

    def close(self, failed: bool) -> None:
        self.failed = failed


class Unreachable(Remembering):
    """A tracker whose server cannot be reached."""

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        raise ConnectionError("no route to host")

    def close(self, failed: bool) -> None:
        raise ConnectionError("no route to host")


def config(*names: str) -> Config:
    settings = load_config("demo")
    return settings.model_copy(update={"run": settings.run.model_copy(update={"trackers": list(names)})})


def test_tracker_that_fails_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[Remembering] = []

    def remember(settings: Config) -> Remembering:
        opened.append(Remembering(settings))
        return opened[0]

    trackers = Trackers(config("away", "here"), {"away": Unreachable, "here": remember})
    with caplog.at_level(logging.WARNING):
        trackers.log_metrics(1, {"reward/mean": 1.0})
        trackers.log_metrics(2, {"reward/mean": 1.0})
        trackers.close(failed=False)
    assert opened[0].steps == [1, 2]
    assert opened[0].failed is False
    assert caplog.messages == [
        f"tracker away: the {what} was not recorded: ConnectionError: no route to host"
        for what in ("metrics of step 1", "metrics of step 2", "end of the run")
    ]


def test_trackers_before_one_that_cannot_be_opened_are_closed() -> None:
    opened: list[Remembering] = []

    def remember(settings: Config) -> Remembering:
        opened.append(Remembering(settings))
        return opened[0]

    def refuse(settings: Config) -> Remembering:
        raise RunError("run.trackers: refused")

    with pytest.raises(RunError, match="refused"):
        Trackers(config("here", "away"), {"here": remember, "away": refuse})
    assert opened[0].failed is True
