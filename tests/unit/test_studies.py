"""Studies: valid run configurations, pairing, verdicts, the answer, result pages and their publication."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.geometry import iou_matrix
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.answers import answer_text, response_text
from geovlm_ray.data.scene_tasks import BUILDERS
from geovlm_ray.data.scenes import demonstration, scene_example
from geovlm_ray.evaluation.studies.noisy_labels import MAX_SHIFT, NOISY_TASKS, noisy
from geovlm_ray.evaluation.studies.page import write_study
from geovlm_ray.evaluation.studies.publish import publish
from geovlm_ray.evaluation.studies.results import ALL, Difference, RunResult, difference
from geovlm_ray.evaluation.studies.runs import StudyPlan, run_name
from geovlm_ray.evaluation.studies.study import Study, load_study, study_names
from geovlm_ray.evaluation.studies.verdicts import Comparison, answer, baseline_comparisons
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.tasks import TASKS, extensions

RECORDS = 4


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the plugin of a study registers is removed after the test."""
    before = [(registry, dict(registry)) for registry in (TASKS, BUILDERS)]
    monkeypatch.setattr(extensions, "_plugins", list(extensions._plugins))
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)
