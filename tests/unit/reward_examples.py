"""Helpers of reward tests: examples, well-formed responses, and the SBERT embedder."""

from __future__ import annotations

import functools
from typing import Any

from geovlm_ray.core.schema import Box, Example, GroundedText, RewardScore, Target
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.sbert import SbertEmbedder


@functools.cache
def embedder() -> SbertEmbedder:
    """The SBERT model, loaded once for all tests."""
    return SbertEmbedder.from_config(RewardConfig().sbert)


def example(task: str, target: Target, **fields: Any) -> Example:
    """An example of a task with this target."""
    return Example("1", task, (), "", target, **fields)


def boxes(*rows: tuple[float, ...]) -> tuple[Box, ...]:
    """Boxes without labels."""
    return tuple(Box(tuple(map(float, row))) for row in rows)


def response(answer: str) -> str:
    """A well-formed response."""
    return f"<think>I look.</think><answer>{answer}</answer>"


def score(answer: str, record: Example, **settings: Any) -> RewardScore:
    """Score one well-formed response."""
    config = RewardConfig(**settings)
    model = embedder() if needs_embedder(record.task, config) else None
    return score_batch([response(answer)], [record], config, model)[0]


def accuracy(answer: str, record: Example, form: str | None = None, **settings: Any) -> float:
    """Accuracy of one answer under a form of the task's reward."""
    return score(answer, record, forms={record.task: form} if form else {}, **settings).accuracy


SAMPLES: dict[str, tuple[Target, str]] = {
    "scene_classification": (("Dense Residential",), "dense residential"),
    "multilabel_classification": (("Pastures", "Beaches, dunes, sands"), "Pastures, Beaches, dunes, sands"),
    "temporal_classification": (("lake or pond",), "lake or pond"),
    "damage_assessment": (("no-damage",), "No damage."),
    "vqa": ("yes", "Yes"),
    "object_detection": (boxes((1, 2, 30, 40), (50, 50, 60, 60)), "[[1, 2, 30, 40], [50, 50, 60, 60]]"),
    "referred_object_detection": (boxes((1, 2, 30, 40, 15)), "[[1, 2, 30, 40, 15]]"),
    "visual_grounding": (boxes((1, 2, 30, 40)), "[1, 2, 30, 40]"),
    "region_captioning": (("large vehicle", "a truck"), "large vehicle"),
    "image_captioning": (("two ships on the left .",), "two ships on the left ."),
    "grounded_description": (
        GroundedText("two ships on water", boxes((1, 2, 30, 40), (50, 50, 60, 60))),
        "<ref>two ships</ref><box>[[1, 2, 30, 40]][[50, 50, 60, 60]]</box> on water",
    ),
    "change_captioning": (("nothing has changed", "the scene is the same"), "nothing has changed"),
}
"""A target and its correct answer for every task."""
