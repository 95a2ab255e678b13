"""Shared fixtures."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS, extensions

REGISTRIES: tuple[dict[str, Any], ...] = (TASKS, REWARDS, FORMATS, OBJECTIVES, extensions._tasks)


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As in what a shell starts in the background; commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo() -> Config:
    """Configuration of the demo recipe."""
    return load_config("demo")


@pytest.fixture(scope="session")
def encoder(demo: Config) -> PromptEncoder:
    """Prompt encoder of the tiny policy."""
    return PromptEncoder(load_processor(model_folder("tiny")), demo.prompt)


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
