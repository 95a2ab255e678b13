"""A run that does not fit on the nodes of a cluster is rejected before it starts."""

from __future__ import annotations

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.placement import GIB
from geovlm_ray.training.capacity import Node, check_fits

NO_CPUS = ("placement.reward.num_cpus=0", "placement.learner.num_cpus=0", "placement.rollout.num_cpus=0")
TWO_CPUS: Node = {"CPU": 2.0, "GPU": 0.0, "memory": 8.0 * GIB}
TWO_GPUS: Node = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * GIB}


@pytest.mark.parametrize(
    ("settings", "nodes"),
    [
        (["placement.learner.num_cpus=2"], [TWO_CPUS]),
        (["placement.learner.num_cpus=2", "placement.rollout.num_cpus=2"], [TWO_CPUS] * 2),
        (["placement.rollout.actors=6", "placement.rollout.num_cpus=0.3333333"], [TWO_CPUS]),
        (["placement.rollout.actors=2", "placement.rollout.num_gpus=0.6"], [TWO_GPUS]),
        (["placement.rollout.num_gpus=2", "rollout.tensor_parallel=2"], [TWO_CPUS, TWO_GPUS]),
        (["placement.rollout.actors=2", "placement.rollout.memory_gb=5"], [TWO_CPUS] * 2),
        (
            ["placement.rollout.actors=2", "placement.rollout.num_cpus=2", "placement.learner.num_cpus=3"],
            [{"CPU": 3.0}, {"CPU": 4.0}],
        ),
    ],
)
def test_run_that_fits_is_accepted(settings: list[str], nodes: list[Node]) -> None:
    check_fits(load_config("demo", [*NO_CPUS, *settings]), nodes)


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        (
            ["placement.learner.num_cpus=3"],
            [TWO_CPUS],
            "the run requests 3 CPUs (1 learner x 3), found 2; lower placement.learner.num_cpus",
        ),
        (
            ["placement.learner.num_cpus=3"],
            [TWO_CPUS, TWO_CPUS],
            "the run requests 1 learner x (3 CPUs), each on one node, found room for 0 on 2 nodes "
            "(2 CPUs, 0 GPUs, 8 GiB); lower placement.learner.num_cpus",
        ),
        (
            ["placement.rollout.actors=3", "placement.rollout.num_gpus=0.6"],
            [TWO_GPUS],
            "the run requests 3 rollout x (0.6 GPUs), each on one node, found room for 2 on 1 node "
            "(8 CPUs, 2 GPUs, 64 GiB); lower placement.rollout.num_gpus or placement.rollout.actors",
        ),
        (
            ["placement.rollout.actors=2", "placement.rollout.num_gpus=1", "placement.rollout.memory_gb=40"],
            [TWO_GPUS, TWO_CPUS, TWO_CPUS, TWO_CPUS],
            "the run requests 2 rollout x (1 GPUs, 40 GiB), each on one node, found room for 1 on 4 nodes "
            "(8 CPUs, 2 GPUs, 64 GiB; 2 CPUs, 0 GPUs, 8 GiB); lower placement.rollout.num_gpus or "
            "placement.rollout.memory_gb or placement.rollout.actors",
        ),
    ],
)
def test_run_that_does_not_fit_names_the_settings_to_lower(
    settings: list[str], nodes: list[Node], message: str
) -> None:
    with pytest.raises(RunError) as error:
        check_fits(load_config("demo", [*NO_CPUS, *settings]), nodes)
    assert str(error.value) == message
