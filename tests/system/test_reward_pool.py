"""The reward pool on Ray under hostile responses, dying actors and a user's function that hangs and crashes."""

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
from geovlm_ray.core.schema import TASK_NAMES, Prompt, Sample, SampleGroup
from geovlm_ray.rewards.local import LocalRewards
from tests.data.adversarial import SIZE, corpus
from tests.unit.judging import SAMPLES, example, response

pytestmark = pytest.mark.slow

GROUP = 8
STATUSES = {"ok", "unparseable", "too_long"}
MOMENT = 1.0
"""Seconds after which an actor is killed; all responses take several times as long."""

Pool = Callable[..., RayRewards]


@pytest.fixture
def pool(cluster: None) -> Iterator[Pool]:
    """Makes a pool of two actors under overrides of the configuration, and ends it after the test."""
    made = []

    def make(*overrides: str) -> RayRewards:
        made.append(RayRewards(settings(*overrides), TASK_NAMES))
        return made[-1]

    yield make
    for each in made:
        each.close()


def settings(*overrides: str) -> Config:
    return load_config("demo", ["placement.reward.actors=2", "placement.reward.num_cpus=0.5", *overrides])


def batch(texts: Sequence[str]) -> list[SampleGroup]:
    """The texts as samples, each with its own token id, in groups of `GROUP` whose tasks take turns."""
    samples = [Sample((i,), (0.0,), text, "stop", 0) for i, text in enumerate(texts)]
    parts = [tuple(samples[i : i + GROUP]) for i in range(0, len(samples), GROUP)]
    records = [example(task, SAMPLES[task][0]) for task in TASK_NAMES]
    return [SampleGroup(Prompt(i, records[i % len(records)]), part) for i, part in enumerate(parts)]


def check(scored: Sequence[SampleGroup], given: Sequence[SampleGroup], statuses: set[str]) -> None:
    """Every sample of the batch is there once, in its place, with one score."""
    assert [g.prompt for g in scored] == [g.prompt for g in given]
    for ours, theirs in zip(scored, given, strict=True):
        assert [(s.token_ids, s.text) for s in ours.samples] == [(s.token_ids, s.text) for s in theirs.samples]
        for sample in ours.samples:
            assert sample.reward is not None
            assert 0 <= sample.reward.total <= 2
            assert sample.reward.status in statuses


def statuses(scored: Sequence[SampleGroup]) -> Counter[str]:
    return Counter(s.reward.status for g in scored for s in g.samples if s.reward is not None)


@ray.remote
class Rival:
    """Holds what it is given of the cluster."""


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


def process_of(actor: ray.actor.ActorHandle) -> int:
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


def test_every_adversarial_response_is_scored_once_though_an_actor_is_killed(pool: Pool) -> None:
    given = batch(list(corpus()))
    rewards = pool()
    rewards.score(given[:24])
    before = list(rewards.actors)
    killer = threading.Timer(MOMENT, os.kill, (process_of(before[0]), signal.SIGKILL))
    killer.start()
    scored = rewards.score(given)
    killer.join()
    assert rewards.actors[0] is not before[0], "it was not killed in the middle"
    assert rewards.actors[1] is before[1]
    check(scored, given, STATUSES)
    assert sum(len(g.samples) for g in scored) == SIZE
    assert min(statuses(scored)[name] for name in STATUSES) >= SIZE // 200
    # The same texts have the same scores in this process; embeddings depend on the batch in the last digits.
    some = slice(0, len(given), 10)
    for here, there in zip(LocalRewards(settings().reward).score(given[some]), scored[some], strict=True):
        assert here.rewards == pytest.approx(there.rewards, abs=1e-4)


@pytest.mark.parametrize("part", ["reward", "sbert"])
def test_an_actor_that_is_dead_when_a_batch_comes_is_replaced(pool: Pool, part: str) -> None:
    given = batch([response(SAMPLES[task][1]) for task in TASK_NAMES for _ in range(GROUP)])
    rewards = pool()
    ray.kill(rewards.actors[1] if part == "reward" else rewards.sbert)
    scored = rewards.score(given)
    check(scored, given, {"ok"})
    assert all(r == 2 for g in scored for r in g.rewards)
    assert [g.rewards for g in rewards.score(given)] == [g.rewards for g in scored]


def test_what_an_actor_without_room_would_score_goes_to_others_and_none_at_all_ends_the_run(pool: Pool) -> None:
    given = batch([response(SAMPLES[task][1]) for task in TASK_NAMES for _ in range(GROUP)])
    rewards = pool("run.name=no-room")
    rewards.score(given)
    rival = Rival.options(num_cpus=ray.cluster_resources()["CPU"] - 1).remote()
    ray.get(rival.__ray_ready__.remote())
    rewards.config = settings("rollout.stall_s=3", "run.name=no-room", "placement.reward.num_cpus=2")
    ray.kill(rewards.actors[1])
    for _ in range(2):
        check(rewards.score(given), given, {"ok"})
    ray.kill(rewards.actors[0])
    with pytest.raises(LostError, match="no reward actor has started within 3 s"):
        rewards.score(given)
    ray.kill(rival)


def test_a_user_function_that_hangs_or_crashes_costs_its_own_samples_alone(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    (tmp_path / "mine.py").write_text(f"LOG = {str(log)!r}\n{USER_REWARD}")
    texts = [response(f"{kind} {i}") for i, kind in enumerate(["good"] * 30 + ["hang", "crash"] * 3 + ["good"] * 60)]
    given = batch(texts)
    rewards = pool(f"reward={tmp_path / 'mine.py'}:reward", "reward.time_limit_s=1", "run.name=user-function")
    scored = rewards.score(given)
    check(scored, given, {"ok", "timeout", "error"})
    assert statuses(scored) == {"ok": 90, "timeout": 3, "error": 3}
    for sample in (s for g in scored for s in g.samples):
        assert sample.reward is not None
        assert sample.reward.accuracy == (0.75 if "good" in sample.text else 0)
    assert Counter(log.read_text().splitlines()) == Counter(texts), "a sample was not scored exactly once"
