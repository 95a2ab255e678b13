"""Reward interface: signature and result of a reward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.config import RewardConfig, TextWeights
from geovlm_ray.tasks import TargetKind


class Embedder(Protocol):
    """A sentence-embedding model."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings, float32 [n, d], in the order of the texts."""
        ...


@dataclass(frozen=True)
class RewardResult:
    """Accuracy of one answer in [0, 1], its named components, and a status (``ok`` or ``unparseable``)."""

    accuracy: float
    components: dict[str, float] = field(default_factory=dict)
    status: str = "ok"


RewardFn = Callable[[Sequence[str], Sequence[Example], RewardConfig, Embedder | None], list[RewardResult]]
AnswerReward = Callable[[str, Example, RewardConfig], RewardResult]


@dataclass(frozen=True)
class RewardSpec:
    """A reward: a pure, batched function, the target kind it scores, and the text metrics that it computes, if any."""

    score: RewardFn
    target_kind: TargetKind
    text_weights: Callable[[RewardConfig], TextWeights | None] = lambda config: None


def per_answer(score: AnswerReward) -> RewardFn:
    """The batched form of a reward that scores one answer at a time."""

    def score_all(
        answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
    ) -> list[RewardResult]:
        return [score(answer, example, config) for answer, example in zip(answers, examples, strict=True)]

    return score_all
