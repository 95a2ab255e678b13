"""Which scored groups may be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core.interfaces import TRAINED
from geovlm_ray.core.schema import SampleGroup


def admit(groups: Sequence[SampleGroup], *, version: int, max_staleness: int) -> dict[str, list[SampleGroup]]:
    """Groups whose oldest sample is at most ``max_staleness`` versions behind, and those that are too stale.

    Groups without reward variance are admitted: they carry no gradient, but count in the mean.
    """
    admitted = [g for g in groups if version - g.weight_version <= max_staleness]
    return {TRAINED: admitted, "stale": [g for g in groups if version - g.weight_version > max_staleness]}
