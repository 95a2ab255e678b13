"""What tests share."""

from __future__ import annotations

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.model.prompts import PromptEncoder


@pytest.fixture(scope="session")
def demo() -> Config:
    """The demo's configuration."""
    return load_config("demo")


@pytest.fixture(scope="session")
def encoder(demo: Config) -> PromptEncoder:
    """The tiny policy's renderer of prompts."""
    return PromptEncoder(load_processor(model_folder("tiny")), demo.prompt)
