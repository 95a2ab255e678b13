"""Fixtures of the unit tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from geovlm_ray.data.formats import FORMATS
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS, extensions

REGISTRIES: tuple[dict[str, Any], ...] = (TASKS, REWARDS, FORMATS, OBJECTIVES, extensions._tasks)


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the plugins and tasks that a test registers."""
    before = [dict(registry) for registry in REGISTRIES]
    monkeypatch.setattr(extensions, "_plugins", list(extensions._plugins))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
