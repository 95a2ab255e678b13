"""The contract of a reward: what it is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.text_metrics.embedding import Embedder
from geovlm_ray.tasks import TargetKind


@dataclass(frozen=True)
class RewardResult:
    """The accuracy of one answer in [0, 1], its named parts, and whether the answer could be read."""

    accuracy: float
    components: dict[str, float] = field(default_factory=dict)
    status: str = "ok"


RewardFn = Callable[[Sequence[str], Sequence[Example], RewardConfig, Embedder | None], list[RewardResult]]


@dataclass(frozen=True)
class RewardSpec:
    """One form of a reward: a pure, batched function of answers and their examples."""

    judge: RewardFn
    target_kind: TargetKind
    embeds: Callable[[RewardConfig], bool] = lambda config: False
