"""Staleness check at admission: which scored groups are trained on."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.core.interfaces import TRAINED
from geovlm_ray.core.schema import SampleGroup


def admit(groups: Sequence[SampleGroup], *, version: int, max_staleness: int) -> dict[str, list[SampleGroup]]:
    """Split groups by whether their oldest sample is at most ``max_staleness`` weight versions behind ``version``.

    Groups without reward variance are admitted: they have no gradient but count in the loss mean.
    """
    admitted = [g for g in groups if version - g.weight_version <= max_staleness]
    return {TRAINED: admitted, "stale": [g for g in groups if version - g.weight_version > max_staleness]}
