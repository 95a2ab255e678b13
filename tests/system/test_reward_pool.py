"""Reward pool on Ray: adversarial responses, crashed actors, and user functions that hang or crash."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import ray

from actors.reward import RayRewards
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import LostError
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.tasks import TASKS
from tests.data.adversarial import SIZE, corpus
from tests.system.closing import check_close_ends_waiting_call
from tests.unit.reward_examples import SAMPLES, example, response

pytestmark = pytest.mark.slow

GROUP = 8
STATUSES = {"ok", "unparseable", "too_long"}
KILL_DELAY_S = 1.0
"""Delay before an actor is killed; scoring all responses takes several times as long."""

Pool = Callable[..., RayRewards]


@pytest.fixture
def pool(cluster: None) -> Iterator[Pool]:
    """Factory of two-actor pools with configuration overrides; closes them after the test."""
    made = []

    def make(*overrides: str) -> RayRewards:
        made.append(RayRewards(settings(*overrides), TASKS))
        return made[-1]

    yield make
    for each in made:
        each.close()


def settings(*overrides: str) -> Config:
    return load_config("demo", ["placement.reward.actors=2", "placement.reward.num_cpus=0.5", *overrides])


def batch(texts: Sequence[str]) -> list[SampleGroup]:
    """The texts as samples with unique token ids, in groups of `GROUP` that cycle through the tasks."""
    samples = [Sample((i,), (0.0,), text, "stop", 0) for i, text in enumerate(texts)]
    parts = [tuple(samples[i : i + GROUP]) for i in range(0, len(samples), GROUP)]
    records = [example(task, SAMPLES[task][0]) for task in TASKS]
    return [SampleGroup(Prompt(i, records[i % len(records)]), part) for i, part in enumerate(parts)]


def check_scores(scored: Sequence[SampleGroup], groups: Sequence[SampleGroup], statuses: set[str]) -> None:
    """Check that every sample keeps its position and has one valid score."""
    assert [g.prompt for g in scored] == [g.prompt for g in groups]
    for result, original in zip(scored, groups, strict=True):
        assert [(s.token_ids, s.text) for s in result.samples] == [(s.token_ids, s.text) for s in original.samples]
        for sample in result.samples:
            assert sample.reward is not None
            assert 0 <= sample.reward.total <= 2
            assert sample.reward.status in statuses


def statuses(scored: Sequence[SampleGroup]) -> Counter[str]:
    return Counter(s.reward.status for g in scored for s in g.samples if s.reward is not None)


@ray.remote
class CpuHog:
    """Occupies CPUs of the cluster."""


USER_REWARD = """
import os, time

def reward(response, target):
    with open(LOG, "a") as log:
        log.write(response + "\\n")
    if "hang" in response:
        time.sleep(60)
    if "crash" in response:
        os._exit(3)
    return 0.75
"""


def actor_pid(actor: ray.actor.ActorHandle) -> int:
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.parametrize("size", [1_000, pytest.param(SIZE, marks=pytest.mark.long)])
def test_every_adversarial_response_is_scored_once_when_an_actor_is_killed(pool: Pool, size: int) -> None:
    groups = batch(list(corpus(size)))
    rewards = pool()
    rewards.score(groups[:24])
    before = list(rewards.actors)
    killer = threading.Timer(KILL_DELAY_S, os.kill, (actor_pid(before[0]), signal.SIGKILL))
    killer.start()
    scored = rewards.score(groups)
    killer.join()
    assert rewards.actors[0] is not before[0], "the actor was not killed during scoring"
    assert rewards.actors[1] is before[1]
    check_scores(scored, groups, STATUSES)
    assert sum(len(g.samples) for g in scored) == size
    assert min(statuses(scored)[name] for name in STATUSES) >= size // 200
    # Local scores match; embeddings differ in the last digits with the batch.
    subset = slice(0, len(groups), 10)
    for local, remote in zip(LocalRewards(settings().reward).score(groups[subset]), scored[subset], strict=True):
        assert local.rewards == pytest.approx(remote.rewards, abs=1e-4)


@pytest.mark.parametrize("part", ["reward", pytest.param("sbert", marks=pytest.mark.long)])
def test_dead_actor_is_replaced_at_the_next_batch(pool: Pool, part: str) -> None:
    groups = batch([response(SAMPLES[task][1]) for task in TASKS for _ in range(GROUP)])
    rewards = pool()
    ray.kill(rewards.actors[1] if part == "reward" else rewards.sbert.actors[0])
    scored = rewards.score(groups)
    check_scores(scored, groups, {"ok"})
    assert all(r == 2 for g in scored for r in g.rewards)
    assert [g.rewards for g in rewards.score(groups)] == [g.rewards for g in scored]


@pytest.mark.long
def test_unschedulable_actor_is_skipped_and_the_run_fails_when_none_is_left(pool: Pool) -> None:
    groups = batch([response(SAMPLES[task][1]) for task in TASKS for _ in range(GROUP)])
    rewards = pool("run.name=no-room")
    rewards.score(groups)
    cpu_hog = CpuHog.options(num_cpus=ray.cluster_resources()["CPU"] - 1).remote()
    ray.get(cpu_hog.__ray_ready__.remote())
    rewards.slots.config = settings("rollout.stall_s=3", "run.name=no-room", "placement.reward.num_cpus=2")
    ray.kill(rewards.actors[1])
    for _ in range(2):
        check_scores(rewards.score(groups), groups, {"ok"})
    ray.kill(rewards.actors[0])
    with pytest.raises(LostError, match="reward actors: expected at least 1 to start, found 0 within 3 s"):
        rewards.score(groups)
    ray.kill(cpu_hog)


def test_close_ends_a_call_that_waits_for_a_starting_actor(pool: Pool) -> None:
    rewards = pool("placement.reward.num_cpus=1000", "run.name=never-starts")
    groups = batch([response(SAMPLES["vqa"][1])] * GROUP)
    check_close_ends_waiting_call(rewards, lambda: rewards.score(groups), lambda: True)


def test_hanging_or_crashing_user_function_fails_only_its_own_samples(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    (tmp_path / "mine.py").write_text(f"LOG = {str(log)!r}\n{USER_REWARD}")
    texts = [response(f"{kind} {i}") for i, kind in enumerate(["good"] * 30 + ["hang", "crash"] * 3 + ["good"] * 60)]
    groups = batch(texts)
    rewards = pool(f"reward={tmp_path / 'mine.py'}:reward", "reward.time_limit_s=1", "run.name=user-function")
    scored = rewards.score(groups)
    check_scores(scored, groups, {"ok", "timeout", "error"})
    assert statuses(scored) == {"ok": 90, "timeout": 3, "error": 3}
    for sample in (s for g in scored for s in g.samples):
        assert sample.reward is not None
        assert sample.reward.accuracy == (0.75 if "good" in sample.text else 0)
    assert Counter(log.read_text().splitlines()) == Counter(texts), "a sample was not scored exactly once"


@pytest.mark.parametrize("part", ["reward", pytest.param("sbert", marks=pytest.mark.long)])
def test_stalled_actor_is_replaced_and_its_samples_are_scored(pool: Pool, part: str) -> None:
    groups = batch([response(SAMPLES[task][1]) for task in TASKS for _ in range(GROUP)])
    rewards = pool("reward.stall_s=40")
    expected = [g.rewards for g in rewards.score(groups)]
    slots = rewards.slots if part == "reward" else rewards.sbert
    assert slots is not None
    stalled = slots.actors[0]
    os.kill(actor_pid(stalled), signal.SIGSTOP)
    scored = rewards.score(groups)
    check_scores(scored, groups, {"ok"})
    assert [g.rewards for g in scored] == expected
    assert slots.actors[0] is not stalled
