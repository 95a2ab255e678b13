"""Which scored groups may be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from geovlm_ray.schema import SampleGroup


def admit(
    groups: Sequence[SampleGroup], *, version: int, max_staleness: int
) -> tuple[list[SampleGroup], dict[str, float]]:
    """Groups whose oldest sample is at most ``max_staleness`` versions behind, and the dropped ones by reason.

    Groups without reward variance are admitted: they carry no gradient, but count in the mean.
    """
    admitted = [g for g in groups if version - g.weight_version <= max_staleness]
    return admitted, {"admitted": float(len(admitted)), "dropped/stale": float(len(groups) - len(admitted))}
