"""Placements in which learner and engines may share a GPU: the transport that is chosen, and what is refused."""

from __future__ import annotations

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError


def placed(rollout: float, learner: float, actors: int = 1, *others: str) -> list[str]:
    """Overrides for a number of rollout actors and their share of a GPU, and that of the learner."""
    gpus = [f"placement.rollout.num_gpus={rollout}", f"placement.learner.num_gpus={learner}"]
    return [*gpus, f"placement.rollout.actors={actors}", *others]


@pytest.mark.parametrize(
    ("overrides", "transport"),
    [
        (placed(0.5, 0.5), "Ipc"),
        (placed(0.6, 0.4, 2), "ObjectStore"),
        (placed(0.6, 0.9, 2), "Nccl"),
        (placed(1, 0.9, 2), "Nccl"),
        (placed(1, 1), "Nccl"),
        (placed(0, 1), "ObjectStore"),
    ],
)
def test_nccl_is_not_chosen_where_two_processes_may_have_one_gpu(overrides: list[str], transport: str) -> None:
    assert load_config("demo", overrides).transport.__name__ == transport


def test_several_engines_on_one_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"placement\.rollout\.num_gpus: expected more than half a GPU for each of 2"):
        load_config("demo", placed(0.5, 0.5, 2))


@pytest.mark.parametrize(("rollout", "learner"), [(1, 0), (0, 1), (0.5, 0.25)])
def test_colocated_actors_have_parts_of_one_gpu(rollout: float, learner: float) -> None:
    settings = placed(rollout, learner, 1, "placement.colocate=true", "loop.max_staleness=0")
    with pytest.raises(ConfigError, match="to make one GPU, or both 0"):
        load_config("demo", settings)
    for good in (placed(0.5, 0.5), placed(0, 0)):
        load_config("demo", [*good, "placement.colocate=true", "loop.max_staleness=0"])


@pytest.mark.parametrize(
    "setting",
    ["reward.confidence=brier", "reward.combine=gated", "reward.normalize={vqa: [0.1, 1]}", "learner.kl_in=reward"],
)
def test_rewards_of_their_own_scale_are_refused_with_settings_that_they_ignore(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"advantage_per_reward=true: expected .*, found {setting.partition('=')[0]}"):
        load_config("demo", ["learner.advantage_per_reward=true", "learner.kl_beta=0.1", setting])
