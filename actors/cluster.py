"""The Ray cluster of a run: connecting, checking that everything fits, building the actors."""

from __future__ import annotations

import logging
import os

import ray

from actors.learner import RayLearner
from actors.reward import RayRewards
from actors.rollout import RayRollouts
from geovlm_ray.config import Config
from geovlm_ray.errors import RunError
from geovlm_ray.preflight import Ready, check_fits
from geovlm_ray.quiet import quiet


def connect() -> dict[str, float]:
    """Join the cluster that is running, or start one on this machine; returns its resources."""
    if not ray.is_initialized():
        if "RAY_ADDRESS" not in os.environ:
            # A cluster that lives and dies with this process needs no token, and must not leave one behind.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(
                logging_level=logging.ERROR,
                include_dashboard=None if "RAY_ADDRESS" in os.environ else False,
                runtime_env={"worker_process_setup_hook": quiet},
            )
        except (ConnectionError, RuntimeError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise RunError(f"Ray on {where} cannot be reached or started: {error}") from error
    return ray.cluster_resources()


def build(config: Config, ready: Ready) -> tuple[RayRollouts, RayRewards, RayLearner]:
    """Start all actors of a run."""
    check_fits(config, connect())
    return RayRollouts(config, ready.model), RayRewards(config, ready.tasks), RayLearner(config, ready.model)
