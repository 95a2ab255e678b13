"""Inputs and outputs of RL objectives, and the loss terms that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.learner.advantages import Center, Scale

if TYPE_CHECKING:
    # The configuration checks names of objectives without loading torch.
    import torch

Aggregation = Literal["token_mean", "sample_mean", "fixed_length"]
MAX_LOG_RATIO = 20.0
"""Bound on the absolute log-ratio of a token, as in verl and EasyR1: a ratio beyond it would overflow."""


@dataclass(frozen=True)
class BatchSize:
    """Size of the whole optimizer batch; sums are divided by it, so the split into micro-batches changes nothing.

    ``max_completion_tokens`` is the maximum completion length in tokens.
    """

    samples: int
    tokens: int
    max_completion_tokens: int


@dataclass(frozen=True)
class LossInputs:
    """N completion tokens of S samples.

    ``logprobs`` (with gradient) and ``old_logprobs`` are [N] fp32, ``sample`` [N] int64 is the sample index of each
    token, ``advantages`` is [S] fp32.
    """

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    sample: torch.Tensor
    advantages: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """Token count of each sample, [S] fp32."""
        return self.per_sample(self.logprobs.new_ones(self.logprobs.shape))

    @property
    def log_ratio(self) -> torch.Tensor:
        """Log of the probability ratio policy / old policy, [N], within +-`MAX_LOG_RATIO`."""
        return (self.logprobs - self.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    def per_sample(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over each sample's tokens, [N] to [S]."""
        return self.advantages.new_zeros(self.advantages.shape).index_add(0, self.sample, values)

    def aggregate(self, values: torch.Tensor, size: BatchSize, aggregation: Aggregation) -> torch.Tensor:
        """A micro-batch's share of the batch mean of per-token values [N], a scalar.

        ``token_mean``: over all tokens. ``sample_mean``: over the tokens of each sample, then over samples.
        ``fixed_length``: sum over each sample's tokens divided by ``max_completion_tokens``, then over samples.
        """
        if aggregation == "token_mean":
            return values.sum() / size.tokens
        if aggregation == "fixed_length":
            return values.sum() / (size.max_completion_tokens * size.samples)
        return (self.per_sample(values) / self.lengths).sum() / size.samples


@dataclass(frozen=True)
class Clip:
    """Clip bounds of the ratio, ``1 - low`` and ``1 + high``, and the dual-clip bound, None if it is off."""

    low: float
    high: float
    dual: float | None = None

    def __call__(self, ratio: torch.Tensor) -> torch.Tensor:
        """Clamp the ratio to its bounds."""
        return ratio.clamp(1 - self.low, 1 + self.high)


@dataclass(frozen=True)
class Surrogate:
    """Per-token values [N] that the policy maximises, and masks [N] of the tokens that each bound clips.

    A token beyond the lower or dual bound, or beyond the upper bound, has no gradient, except in CISPO.
    """

    values: torch.Tensor
    clipped_low: torch.Tensor
    clipped_high: torch.Tensor
    clipped_dual: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """An RL objective: the surrogate of a micro-batch, how it is averaged, and the defaults of its settings.

    KL penalty and entropy bonus are averaged like the surrogate. ``center`` and ``scale`` are the defaults of
    ``learner.advantage_center`` and ``advantage_scale``, ``clip_low`` and ``clip_high`` those of the clip bounds.
    """

    surrogate: Callable[[LossInputs, Clip], Surrogate]
    aggregation: Aggregation
    center: Center = "group"
    scale: Scale = "group"
    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            known = ", ".join(get_args(Aggregation))
            raise ValueError(f"aggregation: expected one of {known}, found {self.aggregation!r}")

    def loss(
        self, tokens: LossInputs, clip: Clip, size: BatchSize, weights: torch.Tensor | float = 1.0
    ) -> tuple[torch.Tensor, Surrogate]:
        """A micro-batch's share of the loss, minus the mean surrogate times ``weights`` [N]; and the surrogate."""
        surrogate = self.surrogate(tokens, clip)
        if not isinstance(surrogate, Surrogate) or surrogate.values.shape != tokens.logprobs.shape:
            found = surrogate if not isinstance(surrogate, Surrogate) else f"shape {list(surrogate.values.shape)}"
            raise ConfigError(
                f"learner.objective: expected a Surrogate with values [{len(tokens.logprobs)}], found {found!r}"
            )
        return -tokens.aggregate(surrogate.values * weights, size, self.aggregation), surrogate


def clipped_surrogate(tokens: LossInputs, clip: Clip) -> Surrogate:
    """PPO's clipped surrogate min(r A, clip(r) A) per token (arXiv 1707.06347, equation 7).

    With a dual clip c, the value of a token with A < 0 is at least c A: a large ratio cannot dominate the gradient (Ye
    et al., arXiv 1912.09729, equation 5).
    """
    advantage = tokens.advantages[tokens.sample]
    ratio = tokens.log_ratio.exp()
    unclipped, bounded = ratio * advantage, clip(ratio) * advantage
    values = unclipped.minimum(bounded)
    clipped_dual = advantage.new_zeros(advantage.shape).bool()
    if clip.dual is not None:
        floor = clip.dual * advantage
        clipped_dual = (advantage < 0) & (values < floor)
        values = values.where(~clipped_dual, floor)
    clipped = unclipped > bounded
    return Surrogate(values, clipped & (advantage < 0), clipped & (advantage > 0), clipped_dual)
