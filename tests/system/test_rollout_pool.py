"""The pool of rollout actors, with engines that answer at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import ray

from actors.cluster import connect
from actors.rollout import RayRollouts, RolloutActor
from benchmarks.instant_engine import InstantActor
from geovlm_ray.config import load_config
from geovlm_ray.errors import RunError
from geovlm_ray.schema import Example, Prompt, SampleGroup

pytestmark = pytest.mark.slow

ACTORS = 3
PROMPTS = [Prompt(i, Example(str(i), "vqa", ("image.png",), "Is there a ship?", "Yes")) for i in range(200)]

Pool = Callable[[type[RolloutActor]], RayRollouts]


class DyingActor(InstantActor):
    """Ends its process in the middle of a batch."""

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        for i, groups in enumerate(super().stream(prompts)):
            yield groups
            if i == 20 and PROMPTS[0] in prompts:
                os.kill(os.getpid(), signal.SIGKILL)


class RaisingActor(InstantActor):
    """Fails in the middle of a batch."""

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[list[SampleGroup]]:
        for i, groups in enumerate(super().stream(prompts)):
            yield groups
            if i == 20:
                raise ValueError("no more")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RAY_")]:
            patch.delenv(name)
        connect()
        yield
        ray.shutdown()


@pytest.fixture
def pool(cluster: None, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Makes a pool of a kind of actors, and ends it after the test."""
    made = []

    def make(kind: type[RolloutActor]) -> RayRollouts:
        name = f"run.name={kind.__name__}"
        config = load_config("demo", [f"rollout.actors={ACTORS}", "rollout.num_cpus=0", name])
        made.append(RayRollouts(config, Path(), kind))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_every_group_of_a_batch_comes_once_and_those_that_are_there_come_together(pool: Pool) -> None:
    rollouts = pool(InstantActor)
    rollouts.update_weights(iter([3]))
    batches = [rollouts.submit(PROMPTS), rollouts.submit(PROMPTS[:2])]
    ray.get([a.__ray_call__.remote(lambda _: None) for a in rollouts.actors])
    for batch, prompts in zip(batches, (PROMPTS, PROMPTS[:2]), strict=True):
        parts = list(batch)
        assert all(parts)
        assert len(parts) < max(len(prompts) / 8, ACTORS)
        groups = sorted((g for part in parts for g in part), key=lambda g: g.group_id)
        assert [g.prompt for g in groups] == prompts
        assert {s.weight_version for g in groups for s in g.samples} == {3}


@pytest.mark.parametrize(
    ("kind", "said"), [(DyingActor, "a rollout actor died"), (RaisingActor, "a rollout actor failed: .*no more")]
)
def test_an_actor_that_ends_within_a_batch_fails_it(pool: Pool, kind: type[RolloutActor], said: str) -> None:
    with pytest.raises(RunError, match=said):
        list(pool(kind).submit(PROMPTS))
