"""The configuration of an evaluation: the model's own, without what only training needs."""

from __future__ import annotations

from pathlib import Path

from geovlm_ray.config import Config
from geovlm_ray.core.placement import ActorResources

ALL = 1_000_000_000
"""More records than any benchmark has."""


def evaluation_config(
    config: Config, model: Path, out: Path, data: Path | None = None, limit: int | None = None
) -> Config:
    """A configuration with whole models only, rollout actors only, and engines that take batches while they draw.

    Args:
        config: as the model was trained.
        model: folder that engines load.
        out: folder of the evaluation, where actors leave their logs.
        data: folder of the benchmarks' data.
        limit: most records of a benchmark.
    """
    absolute = out.absolute()
    values = config.model_dump(mode="json")
    values["run"] |= {"dir": str(absolute.parent), "name": absolute.name}
    values["model"] |= {"path": str(model.absolute()), "lora": None}
    values["evaluation"] = {"records": limit or ALL, "data": str(data.absolute()) if data else ""}
    values["sync"]["mode"] = "in_flight"
    values["loop"]["max_staleness"] = 1
    for kind in ("reward", "sbert", "learner"):
        values["placement"][kind] |= ActorResources().model_dump()
    return Config.model_validate(values)
