"""Importance weights that correct for the difference between the engine that sampled tokens and the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geovlm_ray.learner.loss_inputs import MAX_LOG_RATIO

if TYPE_CHECKING:
    import torch

Correction = Literal["none", "truncate", "mask"]
Level = Literal["token", "sequence"]


@dataclass(frozen=True)
class Importance:
    """How weights are corrected, of tokens or of whole sequences, and their bounds."""

    correction: Literal["truncate", "mask"]
    level: Level
    low: float
    high: float


def importance_weights(
    settings: Importance, log_weight: torch.Tensor, sample: torch.Tensor, *, in_ratio: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the surrogate's tokens, [N] fp32, and a mask [N] of the tokens whose weight was out of bounds.

    ``log_weight`` [N] is the log-prob of each token in the learner minus that in the engine, without gradient; the
    weight of a sequence is the product over its tokens. ``sample`` [N] is the index of each token's sample.
    ``truncate`` bounds weights by ``high`` (token: Yao et al., Your Efficient RL Framework Secretly Brings You
    Off-Policy RL Training, 2025); ``mask`` drops those outside [``low``, ``high``] (token: IcePop, Ling team, Small
    Leak Can Sink a Great Ship, 2025; sequence: Liu et al., When Speed Kills Stability, 2025).

    With ``in_ratio``, the surrogate's ratio already contains the weight; factors then only bound or drop it.
    """
    if settings.level == "sequence":
        log_weight = log_weight.new_zeros(int(sample.max()) + 1).index_add(0, sample, log_weight)[sample]
    weight = log_weight.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if settings.correction == "truncate":
        out = weight >= settings.high
        bounded = weight.clamp(max=settings.high)
    else:
        out = (weight < settings.low) | (weight > settings.high)
        bounded = weight.masked_fill(out, 0.0)
    return bounded / weight if in_ratio else bounded, out
