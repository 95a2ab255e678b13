"""Shared fixtures."""

from __future__ import annotations

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.model.prompts import PromptEncoder


@pytest.fixture(scope="session")
def demo() -> Config:
    """Configuration of the demo recipe."""
    return load_config("demo")


@pytest.fixture(scope="session")
def encoder(demo: Config) -> PromptEncoder:
    """Prompt encoder of the tiny policy."""
    return PromptEncoder(load_processor(model_folder("tiny")), demo.prompt)
