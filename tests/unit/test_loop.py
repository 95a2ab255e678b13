"""Training loop on in-process components: staleness, checkpoints, evaluations, resampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import LostError, PartialStepError, RunError, StuckError
from geovlm_ray.core.interfaces import Components, GroupsByStatus, Saver, Weights
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.sampler import REPLACEMENT_OFFSET, PromptSampler, SceneStream
from geovlm_ray.training.loop import train


class Pool:
    """Rollout pool that completes a batch at once, with the weight version at submission."""

    def __init__(self, logprob: float = -1.0) -> None:
        self.version = -1
        self.logprob = logprob
        self.submitted: list[int] = []
        self.generated: list[int] = []

    def sample(self, prompts: Sequence[Prompt]) -> list[SampleGroup]:
        return [SampleGroup(p, (Sample((1,), (self.logprob,), "a", "stop", self.version),) * 2) for p in prompts]

    def submit(self, prompts: Sequence[Prompt]) -> list[list[SampleGroup]]:
        self.submitted += [p.group_id for p in prompts]
        return [[group] for group in reversed(self.sample(prompts))]

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        self.generated += [p.group_id for p in prompts]
        return self.sample(prompts)

    def probe(self, prompts: Sequence[Prompt], max_tokens: int) -> list[list[SampleGroup]]:
        return [self.sample(prompts)]

    def update_weights(self, weights: Weights) -> None:
        (self.version,) = weights([])

    def sleep(self) -> None: ...

    def close(self) -> None: ...


class Rewards:
    """Reward pool that gives equal rewards within a group, except for group ids for which ``varied`` is true."""

    def __init__(self, varied: Callable[[int], bool] = lambda group_id: False) -> None:
        self.varied = varied

    def score_stream(self, parts: Iterable[Sequence[SampleGroup]]) -> list[SampleGroup]:
        return self.score(sorted((g for part in parts for g in part), key=lambda g: g.group_id))

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        return [
            dataclasses.replace(
                g,
                samples=tuple(
                    dataclasses.replace(s, reward=RewardScore(1.0 + i * self.varied(g.group_id), 1.0, 0.0))
                    for i, s in enumerate(g.samples)
                ),
            )
            for g in groups
        ]

    def close(self) -> None: ...


class Learner:
    """Learner that only counts steps and records the groups it trained on."""

    def __init__(self) -> None:
        self.version = 0
        self.trained: list[int] = []
        self.upcoming: list[list[int]] = []

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        self.upcoming.append([prompt.group_id for prompt in upcoming])
        self.trained += [g.group_id for g in groups]
        self.version += 1
        return {"learner/tokens": 1.0}

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        return {}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        return [np.array([-1.0]) for g in groups for _ in g.samples]

    def weights(self, endpoints: Sequence[Any]) -> list[int]:
        return [self.version]

    def save(self, folder: Path) -> None: ...

    def saved(self) -> bool:
        return True

    def close(self) -> None: ...

    def load(self, folder: Path) -> None: ...


class Evaluator:
    """Evaluator that is due every two steps; its result is available one step later."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.begun: dict[int, int] = {}
        self.waiting: list[int] = []
        self.finished = False

    def due(self, step: int) -> bool:
        return step % 2 == 0 and step not in self.begun

    def begin(self, step: int) -> None:
        self.begun[step] = self.pool.version
        self.waiting.append(step)

    def results(self) -> dict[str, float]:
        completed = [step for step in self.waiting if step < self.pool.version]
        self.waiting = [step for step in self.waiting if step not in completed]
        return {"evaluation/step": float(completed[-1])} if completed else {}

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None: ...


class Recorder:
    """Recorder and checkpointer that records its calls."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.groups_by_status: list[dict[str, list[int]]] = []
        self.saved: list[int] = []
        self.evaluator: Evaluator | None = None
        self.stuck_at: int | None = None

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> str | None:
        self.rows.append({"step": step, **metrics})
        self.groups_by_status.append(
            {status: [g.group_id for g in groups] for status, groups in groups_by_status.items()}
        )
        return "nothing is learnt" if step == self.stuck_at else None

    def save(self, step: int, saver: Saver, metrics: Mapping[str, float]) -> None:
        self.saved.append(step)

    def finish(self) -> None: ...


def run(
    *overrides: str,
    logprob: float = -1.0,
    start: int = 0,
    rewards: Rewards | None = None,
    learner: Learner | None = None,
    recorder: Recorder | None = None,
) -> tuple[Recorder, Pool, Learner]:
    config: Config = load_config(
        "demo", ["run.steps=6", "rollout.prompts_per_step=3", "checkpoint.every=4", *overrides]
    )
    recorder, pool, learner = recorder or Recorder(), Pool(logprob), learner or Learner()
    learner.version = start
    sampler = PromptSampler(SceneStream(0), config.data, 3)
    evaluator = Evaluator(pool) if config.evaluation.every else None
    recorder.evaluator = evaluator
    components = Components(
        pool, rewards or Rewards(), learner, recorder=recorder, checkpoints=recorder, evaluator=evaluator
    )
    train(config, components, sampler, start)
    return recorder, pool, learner


def test_phases_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("geovlm_ray.training.loop.time.perf_counter", lambda: now[0])

    def takes(seconds: float, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def timed(*args: Any, **settings: Any) -> Any:
            now[0] += seconds
            return method(*args, **settings)

        monkeypatch.setattr(owner, name, timed)

    takes(5, Pool, "submit")
    takes(3, Learner, "step")
    takes(2, Pool, "update_weights")
    takes(1, Recorder, "log_step")
    takes(7, Recorder, "save")
    recorder, _, _ = run("loop.max_staleness=0", "run.steps=5")
    found = [{k: v for k, v in row.items() if k.startswith("seconds/") and v} for row in recorder.rows]
    step = {"seconds/rollout": 5, "seconds/learner": 3, "seconds/sync": 2, "seconds/step": 10}
    later = {**step, "seconds/records": 1, "seconds/step": 11}
    assert found == [step, later, later, later, {**later, "seconds/checkpoint": 7, "seconds/step": 18}]


def test_learner_gets_the_prompts_of_the_next_step() -> None:
    _, _, learner = run("loop.max_staleness=1", "run.steps=3")
    assert learner.upcoming == [[3, 4, 5], [6, 7, 8], []]


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_staleness_never_exceeds_the_maximum(staleness: int) -> None:
    recorder, _, learner = run(f"loop.max_staleness={staleness}")
    assert [row["staleness/max"] for row in recorder.rows] == [min(step, staleness) for step in range(6)]
    assert learner.trained == list(range(18))


def test_no_prompt_is_submitted_after_the_last_step() -> None:
    _, pool, _ = run("loop.max_staleness=3")
    assert pool.submitted == list(range(18))


def test_resumed_loop_submits_only_untrained_prompts() -> None:
    _, pool, learner = run("loop.max_staleness=1", start=4)
    assert pool.submitted == learner.trained == list(range(12, 18))


def test_checkpoints_are_saved_at_their_interval_and_at_the_end() -> None:
    assert run()[0].saved == [4, 6]


@pytest.mark.parametrize("staleness", [0, 2])
def test_evaluation_uses_the_weights_of_its_step_and_saves_a_checkpoint(staleness: int) -> None:
    recorder, _, _ = run("evaluation.every=2", "evaluation.benchmarks=[drawn-vqa]", f"loop.max_staleness={staleness}")
    assert recorder.evaluator is not None
    assert recorder.evaluator.begun == {0: 0, 2: 2, 4: 4, 6: 6}
    assert recorder.saved == [2, 4, 6]
    assert {row["step"]: row["evaluation/step"] for row in recorder.rows if "evaluation/step" in row} == {
        1: 0,
        3: 2,
        5: 4,
    }
    assert recorder.evaluator.finished


def test_resumed_loop_runs_only_outstanding_evaluations() -> None:
    recorder, _, _ = run("evaluation.every=2", "evaluation.benchmarks=[drawn-vqa]", start=4)
    assert recorder.evaluator is not None
    assert recorder.evaluator.begun == {4: 4, 6: 6}


class FailingRewards(Rewards):
    """Raises an error when it scores the groups of a step."""

    def __init__(self, error: Exception, step: int) -> None:
        super().__init__()
        self.error = error
        self.first = 3 * step

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        if any(g.group_id == self.first for g in groups):
            raise self.error
        return super().score(groups)


@pytest.mark.parametrize(
    ("error", "saved"),
    [(RunError("no reward"), [4, 5]), (LostError("all engines died"), [4, 5]), (ValueError("a mistake of ours"), [4])],
)
def test_failed_step_saves_the_completed_ones(error: Exception, saved: list[int]) -> None:
    recorder = Recorder()
    with pytest.raises(type(error), match=str(error)):
        run(rewards=FailingRewards(error, step=5), recorder=recorder)
    assert recorder.saved == saved


class FailingLearner(Learner):
    """Raises an error in its last step."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        if self.version == 5:
            raise self.error
        return super().step(groups, upcoming)


@pytest.mark.parametrize(("error", "saved"), [(RunError("not finite"), [4, 5]), (PartialStepError("half"), [4])])
def test_weights_of_no_step_are_not_saved(error: Exception, saved: list[int]) -> None:
    recorder = Recorder()
    with pytest.raises(type(error), match=str(error)):
        run(learner=FailingLearner(error), recorder=recorder)
    assert recorder.saved == saved


def test_log_prob_mismatch_between_engine_and_learner_stops_the_run() -> None:
    with pytest.raises(RunError, match=r"engine 0 and learner disagree.*0\.5.*sync\.parity_tolerance=0\.001"):
        run(logprob=-1.5)


def test_nan_log_prob_stops_the_run() -> None:
    with pytest.raises(RunError, match="disagree"):
        run(logprob=float("nan"))


def test_groups_with_equal_rewards_are_kept_where_advantages_are_centred_over_the_batch() -> None:
    centred = ("learner.advantage_center=batch", "learner.advantage_scale=batch")
    _, pool, _ = run("loop.resample=2", "run.steps=2", *centred, rewards=Rewards())
    assert pool.generated == []


def test_zero_variance_groups_are_resampled_up_to_the_limit_and_logged() -> None:
    # Per step: the first group has variance, the second once it is resampled, the third never.
    has_variance = {0: lambda g: True, 1: lambda g: g >= REPLACEMENT_OFFSET, 2: lambda g: False}
    rewards = Rewards(lambda g: has_variance[g % REPLACEMENT_OFFSET % 3](g))
    recorder, pool, learner = run("loop.resample=2", "run.steps=2", "loop.max_staleness=1", rewards=rewards)
    first, second = REPLACEMENT_OFFSET, 2 * REPLACEMENT_OFFSET
    assert pool.generated == [first + 1, first + 2, second + 2, first + 4, first + 5, second + 5]
    assert learner.trained == [0, first + 1, second + 2, 3, first + 4, second + 5]
    assert recorder.groups_by_status[0] == {
        "trained": [0, first + 1, second + 2],
        "stale": [],
        "resampled": [1, 2, first + 2],
        "bad": [],
    }
    assert [row["groups/resampled"] for row in recorder.rows] == [3, 3]
    assert [row["group/zero_variance"] for row in recorder.rows] == pytest.approx([1 / 3, 1 / 3])


def test_zero_variance_groups_are_kept_without_resampling() -> None:
    recorder, pool, learner = run("run.steps=1")
    assert (pool.generated, learner.trained) == ([], [0, 1, 2])
    task = "multilabel_classification"
    assert (recorder.rows[0]["groups/resampled"], recorder.rows[0][f"task/{task}/zero_variance"]) == (0, 1)


@pytest.mark.parametrize("evaluation", [(), ("evaluation.every=1", "evaluation.benchmarks=[drawn-vqa]")])
def test_colocated_engines_sleep_while_the_learner_trains(
    monkeypatch: pytest.MonkeyPatch, evaluation: tuple[str, ...]
) -> None:
    calls: list[str] = []

    def record(owner: type, name: str) -> None:
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments: (calls.append(name), method(*arguments))[1])

    record(Pool, "submit")
    record(Pool, "sleep")
    record(Pool, "update_weights")
    record(Learner, "step")
    monkeypatch.setattr(Evaluator, "finish", lambda self: calls.append("evaluated"))
    run("placement.colocate=true", "loop.max_staleness=0", "run.steps=2", *evaluation)
    evaluated = ["evaluated"] if evaluation else []
    step = ["submit", *evaluated, "sleep", "step", "update_weights"]
    assert calls == ["update_weights", *step, *step, *evaluated]


def test_run_that_cannot_learn_is_saved_and_ended() -> None:
    recorder = Recorder()
    recorder.stuck_at = 3
    with pytest.raises(StuckError, match=r"^step 3: nothing is learnt\. run\.stop_if_stuck=nothing_scored ends"):
        run(recorder=recorder)
    assert [row["step"] for row in recorder.rows] == [1, 2, 3]
    assert recorder.saved == [3]
    assert StuckError.exit_code == 3
