"""Advantages of a batch under the learner's settings: from rewards and penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.learner.advantages import advantages
from geovlm_ray.learner.config import LearnerConfig


def batch_advantages(
    groups: Sequence[SampleGroup],
    config: LearnerConfig,
    max_completion_tokens: int,
    kl: Mapping[int, np.ndarray] | None = None,
) -> dict[int, np.ndarray]:
    """Advantages of each group's completions, [G], keyed by group id, after the overlong penalty if it is enabled.

    ``kl`` [G], keyed by group id, are estimates of each completion's KL to the reference policy, subtracted from its
    reward with the coefficient ``kl_beta``.

    Raises:
        ValueError: a completion was not scored.
    """
    penalties = {group.group_id: np.zeros(len(group.samples)) for group in groups}
    for group in groups:
        if config.overlong_buffer:
            lengths = np.array([len(s.policy_logprobs) for s in group.samples])
            penalties[group.group_id] += overlong_penalty(lengths, max_completion_tokens, config.overlong_buffer)
        if kl is not None:
            penalties[group.group_id] -= config.kl_beta * kl[group.group_id]
    return advantages(groups, config.advantages, penalties)


def overlong_penalty(lengths: np.ndarray, max_completion_tokens: int, buffer: int) -> np.ndarray:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), in [-1, 0] per completion.

    0 up to ``max_completion_tokens - buffer`` tokens, then linear down to -1 at ``max_completion_tokens``.
    """
    return np.clip((max_completion_tokens - buffer - np.asarray(lengths)) / buffer, -1.0, 0.0)
