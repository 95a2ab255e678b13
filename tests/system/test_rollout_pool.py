"""The pool of rollout actors, with instant fake engines."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.learner import LearnerActor, RayLearner
from actors.placement import Reservation
from actors.rollout import RolloutActor
from actors.rollout_pool import RayRollouts
from actors.slots import MAX_CONSECUTIVE_CRASHES
from benchmarks.instant_engine import InstantActor
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import LostError, RunError
from geovlm_ray.core.schema import Example, Prompt, SampleGroup
from geovlm_ray.training.capacity import KINDS
from geovlm_ray.transport import TRANSPORTS
from geovlm_ray.transport.object_store import ObjectStore
from tests.system.closing import check_close_ends_waiting_call

pytestmark = pytest.mark.slow

ACTORS = 3
PROMPTS = [Prompt(i, Example(str(i), "vqa", ("image.png",), "Is there a ship?", "Yes")) for i in range(200)]

Pool = Callable[..., RayRollouts]


class DyingActor(InstantActor):
    """Kills its process mid-batch if its batch contains the first prompt."""

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        for i, groups in enumerate(self.engine.stream(prompts)):
            yield groups
            if i == 20 and PROMPTS[0] in prompts:
                os.kill(os.getpid(), signal.SIGKILL)


class StallingActor(InstantActor):
    """Hangs mid-batch if its batch contains the first prompt."""

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        for i, groups in enumerate(self.engine.stream(prompts)):
            yield groups
            if i == 20 and PROMPTS[0] in prompts:
                time.sleep(3600)


class CrashingActor(InstantActor):
    """Kills its process on every generation call."""

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from self.engine.stream(prompts)

    def generate(self, prompts: Sequence[Prompt], **sampling: object) -> list[SampleGroup]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


class SlowStartingActor(InstantActor):
    """Does not start once the run directory has a file ``slow``."""

    def __init__(self, config: Config, model: Path) -> None:
        while (config.run.folder / "slow").exists():
            time.sleep(0.1)
        super().__init__(config, model)


class UnreplayableTransport(ObjectStore):
    """Cannot deliver the current version to a replacement."""

    replayable = False


class RaisingActor(InstantActor):
    """Raises an exception mid-batch."""

    def generate(self, prompts: Sequence[Prompt], **sampling: object) -> list[SampleGroup]:
        raise ValueError("no more")

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        for i, groups in enumerate(self.engine.stream(prompts)):
            yield groups
            if i == 20:
                raise ValueError("no more")


@pytest.fixture
def pool(cluster: None, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Factory of pools of an actor class; closes them after the test."""
    pools = []

    def make(kind: type[RolloutActor], *overrides: str) -> RayRollouts:
        placement = (f"placement.rollout.actors={ACTORS}", "placement.rollout.num_cpus=0")
        config = load_config("demo", [*placement, f"run.name={kind.__name__}", *overrides])
        pools.append(RayRollouts(config, Path(), kind))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def set_stall_timeout(rollouts: RayRollouts, seconds: float) -> None:
    """Lower rollout.stall_s once all actors have started; start-up time depends on the machine."""
    ray.get([actor.__ray_ready__.remote() for actor in rollouts.actors])
    reconfigure(rollouts, rollout=rollouts.config.rollout.model_copy(update={"stall_s": seconds}))


def reconfigure(rollouts: RayRollouts, **sections: object) -> None:
    """Replace sections of the configuration of a pool."""
    rollouts.config = rollouts.slots.config = rollouts.config.model_copy(update=sections)


def test_every_group_is_returned_once_and_finished_groups_are_batched(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    rollouts.update_weights(lambda endpoints: iter([3]))
    batches = [rollouts.submit(PROMPTS), rollouts.submit(PROMPTS[:2])]
    ray.get([a.__ray_call__.remote(lambda _: None) for a in rollouts.actors])
    for batch, prompts in zip(batches, (PROMPTS, PROMPTS[:2]), strict=True):
        parts = list(batch)
        assert all(parts)
        assert len(parts) < max(len(prompts) / 8, ACTORS)
        groups = sorted((g for part in parts for g in part), key=lambda g: g.group_id)
        assert [g.prompt for g in groups] == prompts
        assert {s.weight_version for g in groups for s in g.samples} == {3}


@pytest.mark.parametrize("kind", [DyingActor, pytest.param(StallingActor, marks=pytest.mark.long)])
def test_prompts_of_a_dead_or_stalled_actor_are_reassigned_and_returned_once(
    pool: Pool, kind: type[RolloutActor]
) -> None:
    rollouts = pool(kind)
    rollouts.update_weights(lambda endpoints: iter([3]))
    set_stall_timeout(rollouts, 15)
    first = rollouts.actors[0]
    assert [g.prompt for g in in_order(rollouts.submit(PROMPTS))] == PROMPTS
    assert rollouts.actors[0] is not first
    rollouts.update_weights(lambda endpoints: iter([4]))
    ray.get(rollouts.actors[0].receive.remote(4))
    groups = in_order(rollouts.submit(PROMPTS[1:]))
    assert [g.prompt for g in groups] == PROMPTS[1:]
    assert {s.weight_version for g in groups for s in g.samples} == {4}
    assert len(rollouts.probe(PROMPTS[:2], 4)) == ACTORS


def test_actor_killed_between_batches_restarts_with_current_weights(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    rollouts.update_weights(lambda endpoints: iter([7]))
    for actor in rollouts.actors:
        ray.kill(actor)
    assert [g.prompt for g in rollouts.generate(PROMPTS)] == PROMPTS
    groups = in_order(rollouts.submit(PROMPTS))
    assert [g.prompt for g in groups] == PROMPTS
    assert {s.weight_version for g in groups for s in g.samples} == {7}


@pytest.mark.long
def test_unresponsive_idle_actor_is_replaced(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    rollouts.update_weights(lambda endpoints: iter([7]))
    set_stall_timeout(rollouts, 15)
    stopped = rollouts.actors[0]
    os.kill(ray.get(stopped.__ray_call__.remote(lambda _: os.getpid())), signal.SIGSTOP)
    assert [g.prompt for g in rollouts.generate(PROMPTS)] == PROMPTS
    assert rollouts.actors[0] is not stopped


def test_weight_updates_reach_replacement_actors(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    rollouts.update_weights(lambda endpoints: iter([1]))
    ray.kill(rollouts.actors[1])
    rollouts.update_weights(lambda endpoints: iter([2]))
    rollouts.update_weights(lambda endpoints: iter([3]))
    groups = [g for _ in range(3) for g in in_order(rollouts.submit(PROMPTS))]
    assert {s.weight_version for g in groups for s in g.samples} == {3}


def test_replacement_waits_for_the_next_version_if_the_current_one_cannot_be_replayed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRANSPORTS, "unreplayable", UnreplayableTransport)
    rollouts = pool(InstantActor, "sync.transport=unreplayable")
    rollouts.update_weights(lambda endpoints: iter([1]))
    ray.kill(rollouts.actors[0])
    assert [g.prompt for g in rollouts.generate(PROMPTS)] == PROMPTS
    ray.get(rollouts.actors[0].__ray_ready__.remote())
    assert len(rollouts.probe(PROMPTS[:2], 4)) == ACTORS - 1
    rollouts.update_weights(lambda endpoints: iter([2]))
    ray.get(rollouts.actors[0].__ray_ready__.remote())
    probes = rollouts.probe(PROMPTS[:2], 4)
    assert len(probes) == ACTORS
    assert {s.weight_version for groups in probes for g in groups for s in g.samples} == {2}
    for actor in rollouts.actors:
        ray.kill(actor)
    with pytest.raises(LostError, match="replacements cannot be used yet"):
        rollouts.generate(PROMPTS)


class FailingSender(LearnerActor):
    """A learner whose transport fails."""

    def start(self, config: Config, model: Path, rank: int, size: int, address: str) -> None:
        def weights(endpoints: Sequence[Any]) -> Iterator[int]:
            yield 1
            raise OSError("network unreachable")

        self.learner = SimpleNamespace(weights=weights)  # type: ignore[assignment]


def test_error_of_the_sender_is_not_blamed_on_an_engine(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    learner = RayLearner(rollouts.config, Path(), FailingSender)
    with pytest.raises(RunError, match=r"^the learner failed: .*network unreachable"):
        rollouts.update_weights(learner.weights)
    learner.close()


@pytest.mark.parametrize("slow", ["first actor", "replacement"])
def test_close_ends_a_call_that_waits_for_a_starting_actor(pool: Pool, tmp_path: Path, slow: str) -> None:
    name = slow.replace(" ", "-")
    marker = tmp_path / name / "slow"
    marker.parent.mkdir()
    if slow == "first actor":
        marker.touch()
    rollouts = pool(SlowStartingActor, "placement.rollout.actors=1", f"run.dir={tmp_path}", f"run.name={name}")
    (first,) = rollouts.actors
    if slow == "replacement":
        rollouts.update_weights(lambda endpoints: iter([1]))
        marker.touch()
        ray.kill(first)
    check_close_ends_waiting_call(
        rollouts,
        lambda: list(rollouts.submit(PROMPTS)),
        lambda: (rollouts.actors[0] is not first) == (slow == "replacement"),
    )


def test_death_of_an_unstarted_actor_is_not_counted_as_a_crash(pool: Pool) -> None:
    """For instance when the nodes on which they are scheduled die one after another."""
    rollouts = pool(
        InstantActor, "placement.rollout.actors=2", f"placement.rollout.num_cpus={ray.cluster_resources()['CPU']}"
    )
    ray.get(rollouts.actors[0].__ray_call__.remote(lambda _: None))
    ray.kill(rollouts.actors[1])
    rollouts.update_weights(lambda endpoints: iter([1]))
    for _ in range(MAX_CONSECUTIVE_CRASHES):
        waiting = rollouts.actors[1]
        ray.kill(waiting)
        deadline = time.monotonic() + 60
        while rollouts.actors[1] is waiting:
            assert time.monotonic() < deadline
            assert [g.prompt for g in rollouts.generate(PROMPTS[:9])] == PROMPTS[:9]


def test_unschedulable_replacement_fails_the_run(pool: Pool) -> None:
    rollouts = pool(InstantActor, "placement.rollout.actors=1")
    rollouts.update_weights(lambda endpoints: iter([1]))
    set_stall_timeout(rollouts, 3)

    @ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    class CpuHog:
        def ready(self) -> None:
            pass

    cpu_hog = CpuHog.remote()
    ray.get(cpu_hog.ready.remote())
    reconfigure(rollouts, placement=load_config("demo", ["placement.rollout.num_cpus=1"]).placement)
    ray.kill(rollouts.actors[0])
    with pytest.raises(LostError, match="rollout actors: expected at least 1 to start, found 0 within 3 s"):
        list(rollouts.submit(PROMPTS))
    ray.kill(cpu_hog)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param(
            CrashingActor,
            "3 consecutive crashes of rollout actor slot .*a rollout actor died",
            marks=pytest.mark.long,
        ),
        (RaisingActor, "a rollout actor failed: .*no more"),
    ],
)
@pytest.mark.parametrize("call", [lambda p: list(p.submit(PROMPTS)), lambda p: p.generate(PROMPTS)])
def test_repeated_crash_or_exception_fails_the_run(
    pool: Pool, kind: type[RolloutActor], message: str, call: Callable[[RayRollouts], object]
) -> None:
    rollouts = pool(kind)
    rollouts.update_weights(lambda endpoints: iter([1]))
    with pytest.raises(RunError, match=message):
        call(rollouts)


def test_wait_for_nodes_times_out(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["placement.learner.num_cpus=64", "run.wait_for_nodes_s=3"]
    monkeypatch.setattr("actors.placement.GRACE_S", 1)
    monkeypatch.setattr("actors.placement.POLL_S", 1)
    start = time.monotonic()
    with pytest.raises(RunError, match=r"requests 6[0-9.]* CPUs"):
        Reservation(load_config("demo", settings), *KINDS).wait()
    assert time.monotonic() - start >= 3
    Reservation(load_config("demo", ["placement.learner.num_cpus=0", "placement.rollout.num_cpus=0"]), "learner").wait()


def test_replacement_takes_the_place_of_the_lost_actor(cluster: None) -> None:
    config = load_config("demo", ["placement.rollout.actors=2", "placement.rollout.num_cpus=1"])
    reservation = Reservation(config, "rollout")
    reservation.wait()
    rollouts = RayRollouts(config, Path(), InstantActor, reservation)
    rollouts.update_weights(lambda endpoints: iter([1]))
    ray.kill(rollouts.actors[0])
    assert len(in_order(rollouts.submit(PROMPTS))) == len(PROMPTS)
    assert len(rollouts.slots.ready(at_least=2)) == 2
    rollouts.close()
    reservation.release()


def in_order(parts: Iterator[list[SampleGroup]]) -> list[SampleGroup]:
    return sorted((g for part in parts for g in part), key=lambda g: g.group_id)
