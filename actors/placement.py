"""Placement of all actors of a run at once, by Ray placement groups: all of them get their resources, or none."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.training.capacity import Node, check_fits, describe_requests, resource_requests

log = logging.getLogger(__name__)

STRATEGIES = {"pack": "PACK", "spread": "SPREAD"}
POLL_S = 10.0
"""Seconds between reports while a run waits for its resources."""
GRACE_S = 30.0
"""Seconds in which the actors of an earlier run or attempt may still give their resources back."""


class Reservation:
    """The resources of the actors of some kinds (fields of `PlacementConfig`), on nodes that Ray chooses.

    Each kind has a group of its own, the largest first: within a group, Ray may place a smaller bundle on the only node
    that has room for a larger one. The reservation outlives its actors: a replacement starts where the lost actor was,
    or where Ray moves its bundle when the node is lost.
    """

    def __init__(self, config: Config, *kinds: str) -> None:
        self.config = config
        self._requests = [p for p in resource_requests(config) if p.name in kinds and p.bundle]
        strategy = STRATEGIES[config.placement.strategy]
        # An autoscaler starts nodes for pending groups.
        self._groups = {p.name: placement_group([p.bundle] * p.count, strategy) for p in self._requests}

    def wait(self) -> None:
        """Wait for the resources, at least `GRACE_S`.

        Raises:
            RunError: they are not free within ``run.wait_for_nodes_s``, or the nodes can never have them.
        """
        wait_s = self.config.run.wait_for_nodes_s
        deadline = time.monotonic() + max(wait_s, GRACE_S)
        pending = list(self._groups.values())
        while pending:
            left = deadline - time.monotonic()
            if pending[0].wait(max(math.ceil(min(POLL_S, left)), 1)):
                del pending[0]
                continue
            problem = self._problem()
            if left <= 0 or (not wait_s and not isinstance(problem, BusyError)):
                self.release()
                raise problem
            log.warning("waiting for resources, %.0f s left: %s", left, problem)

    def options(self, kind: str, slot: int) -> dict[str, Any]:
        """Ray's scheduling option of an actor."""
        if kind not in self._groups:
            return {}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[kind], slot)}

    def release(self) -> None:
        """Give the resources back; kills the actors that still use them."""
        for group in self._groups.values():
            remove_placement_group(group)
        self._groups.clear()

    def _problem(self) -> RunError:
        try:
            check_fits(self.config, nodes())
        except RunError as error:
            return error
        return BusyError(
            f"the run's actors ({describe_requests(self._requests)}) do not fit together on the nodes, or on what "
            "other jobs leave of them (`ray status`); lower placement, or let run.wait_for_nodes_s wait"
        )


class BusyError(RunError):
    """The nodes are large enough, but their resources are not free or cannot be divided as requested."""


def nodes() -> list[Node]:
    """Resources of every live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
