"""Reward interface: signature and result of a reward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.text_metrics.embedding import Embedder
from geovlm_ray.tasks import TargetKind


@dataclass(frozen=True)
class RewardResult:
    """Accuracy of one answer in [0, 1], its named components, and a status (``ok`` or ``unparseable``)."""

    accuracy: float
    components: dict[str, float] = field(default_factory=dict)
    status: str = "ok"


RewardFn = Callable[[Sequence[str], Sequence[Example], RewardConfig, Embedder | None], list[RewardResult]]


@dataclass(frozen=True)
class RewardSpec:
    """A reward: a pure, batched function, the target kind it scores, and whether it needs sentence embeddings."""

    score: RewardFn
    target_kind: TargetKind
    embeds: Callable[[RewardConfig], bool] = lambda config: False
