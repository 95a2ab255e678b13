"""Configuration of an evaluation, derived from the model's training configuration."""

from __future__ import annotations

from pathlib import Path

from geovlm_ray.config import Config
from geovlm_ray.core.placement import ActorResources

NO_LIMIT = 1_000_000_000
"""More records than any benchmark has."""
MAY_CHANGE = (
    "model.path",
    "evaluation.data",
    "rollout.stall_s",
    "run.wait_for_nodes_s",
    "placement.rollout.actors",
    "placement.strategy",
    "data.check_images",
    "data.max_bad",
)
"""Configuration keys that may differ when an evaluation resumes."""


def evaluation_config(
    config: Config, model: Path, out: Path, data: Path | None = None, limit: int | None = None
) -> Config:
    """A training configuration with rollout actors only, and engines that accept batches in flight.

    Engines load the full model in ``model``; actors write their logs to ``out``, the folder of the evaluation. ``data``
    is the folder of the benchmarks' data, ``limit`` the maximum number of records of each.
    """
    absolute = out.absolute()
    values = config.model_dump(mode="json")
    values["run"] |= {"dir": str(absolute.parent), "name": absolute.name}
    values["model"] |= {"path": str(model.absolute()), "lora": None}
    values["evaluation"] = {"records": limit or NO_LIMIT, "data": str(data.absolute()) if data else ""}
    values["sync"]["mode"] = "in_flight"
    values["loop"]["max_staleness"] = 1
    for kind in ("reward", "sbert", "learner"):
        values["placement"][kind] |= ActorResources().model_dump()
    return Config.model_validate(values)
