"""Placement of all actors of a run at once, by Ray placement groups: all of them get their resources, or none."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.training.capacity import Node, check_fits, describe_requests, resource_requests

log = logging.getLogger(__name__)

STRATEGIES = {"pack": "PACK", "spread": "SPREAD"}
NODE_ID = "ray.io/node-id"
"""Label that Ray gives every node."""
POLL_S = 10.0
"""Seconds between reports while a run waits for its resources."""
GRACE_S = 30.0
"""Seconds in which the actors of an earlier run or attempt may still give their resources back."""


class Reservation:
    """The resources of the actors of some kinds (fields of `PlacementConfig`), on nodes that Ray chooses.

    Ray first finds nodes for all actors together, in one group per kind, the largest kind first: within a group, it may
    place a smaller bundle on the only node that has room for a larger one. Every actor then gets a group of its own on
    its node, which outlives it: a replacement starts where the lost actor was. Without groups of their own, the loss of
    a node would make Ray's head look for a new one without pause (`GcsPlacementGroupManager`, Ray 2.60), since a group
    cannot give up a bundle; a group that is tied to a lost node is only removed (`renew`).
    """

    def __init__(self, config: Config, *kinds: str) -> None:
        self.config = config
        self._requests = [p for p in resource_requests(config, kinds) if p.bundle]
        self._names = {p.name for p in self._requests}
        strategy = STRATEGIES[config.placement.strategy]
        # An autoscaler starts nodes for pending groups.
        self._kinds = {p.name: placement_group([p.bundle] * p.count, strategy) for p in self._requests}
        self._actors: dict[tuple[str, int], PlacementGroup] = {}

    def wait(self) -> None:
        """Wait for the resources, at least `GRACE_S`.

        Raises:
            RunError: they are not free within ``run.wait_for_nodes_s``, or the nodes can never have them.
        """
        wait_s = self.config.run.wait_for_nodes_s
        deadline = time.monotonic() + max(wait_s, GRACE_S)
        pending = list(self._kinds.values())
        while pending or self._kinds:
            if not pending:
                self._divide()
                pending = list(self._actors.values())
                continue
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
        """Ray's scheduling option of an actor; without resources to reserve, none."""
        group = self._actors.get((self._request_name(kind), slot))
        return {} if group is None else {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0)}

    def renew(self, kind: str, slot: int) -> None:
        """If an actor's resources were lost with their node, reserve them on any node."""
        kind = self._request_name(kind)
        group = self._actors.get((kind, slot))
        if group is None or placement_group_table(group)["state"] == "CREATED":
            return
        (request,) = (p for p in self._requests if p.name == kind)
        remove_placement_group(group)
        self._actors[kind, slot] = placement_group([request.bundle])

    def release(self) -> None:
        """Give the resources back; kills the actors that still use them."""
        for group in (*self._kinds.values(), *self._actors.values()):
            remove_placement_group(group)
        self._kinds.clear()
        self._actors.clear()

    def _request_name(self, kind: str) -> str:
        """The request that an actor belongs to: a colocated rollout actor to that of its learner."""
        colocated = kind == "rollout" and self.config.placement.colocate and kind not in self._names
        return "learner" if colocated else kind

    def _divide(self) -> None:
        """Replace the group of each kind by one group per actor, on the same nodes."""
        nodes = {kind: placement_group_table(group)["bundles_to_node_id"] for kind, group in self._kinds.items()}
        for group in self._kinds.values():
            remove_placement_group(group)
        self._kinds.clear()
        for request in self._requests:
            for slot in range(request.count):
                node = nodes[request.name][slot]
                group = placement_group([request.bundle], bundle_label_selector=[{NODE_ID: node}])
                self._actors[request.name, slot] = group

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
