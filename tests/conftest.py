"""What tests share."""

from __future__ import annotations

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.policy.model import load_processor, resolve_model
from geovlm_ray.policy.prompts import PromptEncoder


@pytest.fixture(scope="session")
def demo() -> Config:
    """The demo's configuration."""
    return load_config("demo")


@pytest.fixture(scope="session")
def encoder(demo: Config) -> PromptEncoder:
    """The tiny policy's renderer of prompts."""
    return PromptEncoder(load_processor(resolve_model("tiny")), demo.prompt)
