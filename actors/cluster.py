"""The Ray cluster of a run: connecting, checking that everything fits, building the actors."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ray

from actors.learner import RayLearner
from actors.reward import RayRewards
from actors.rollout import RayRollouts
from geovlm_ray.config import Config
from geovlm_ray.preflight import check_fits
from geovlm_ray.quiet import quiet


def connect() -> dict[str, float]:
    """Join the cluster that is running, or start one on this machine; returns its resources."""
    if not ray.is_initialized():
        if "RAY_ADDRESS" not in os.environ:
            # A cluster that lives and dies with this process needs no token, and must not leave one behind.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            logging_level=logging.ERROR,
            include_dashboard=None if "RAY_ADDRESS" in os.environ else False,
            runtime_env={"worker_process_setup_hook": quiet},
        )
    return ray.cluster_resources()


def build(config: Config, model: Path) -> tuple[RayRollouts, RayRewards, RayLearner]:
    """Start all actors of a run."""
    check_fits(config, connect())
    tasks = [task for stage in config.data.stages for task in stage.tasks]
    return RayRollouts(config, model), RayRewards(config, tasks), RayLearner(config, model)
