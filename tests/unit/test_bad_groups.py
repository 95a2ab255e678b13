"""Records that turn out bad during training: replaced in the batch, counted, and the same ones after a resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import DataError, LostError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.sampler import REPLACEMENT_OFFSET, PromptSampler, RecordStream
from geovlm_ray.data.sources import open_stream
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.groups import score_groups
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.training.loop import train
from geovlm_ray.training.preflight import Ready
from geovlm_ray.training.run import execute
from tests.system.test_restarts import CrashingLearner
from tests.unit.datasets import example, write_dataset
from tests.unit.test_loop import Learner, Pool, Recorder, Rewards

RECORDS = 30
PROMPTS = 3


class BlindPool(Pool):
    """Rollout pool that cannot show the records with these ids; keeps what it was asked for."""

    def __init__(self, blind: Sequence[str]) -> None:
        super().__init__()
        self.blind = blind

    def sample(self, prompts: Sequence[Prompt]) -> list[SampleGroup]:
        return [
            SampleGroup(group.prompt, (), "no image") if group.prompt.example.id in self.blind else group
            for group in super().sample(prompts)
        ]


class BlindLearner(Learner):
    """Learner that cannot encode the records with these ids, and keeps the ids of those that it trained on."""

    def __init__(self, blind: Sequence[str]) -> None:
        super().__init__()
        self.blind = blind
        self.records: list[str] = []

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        return {p.group_id: "no image here" for p in prompts if p.example.id in self.blind}

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        self.records += [group.prompt.example.id for group in groups]
        return super().step(groups, upcoming)


def opened(folder: Path, max_bad: float = 0.2, **values: object) -> RecordStream:
    records = [example(k, ("a.png",), **values) for k in range(RECORDS)]
    config = load_config("demo", ["data.source=parquet", f"data.path={folder}", f"data.max_bad={max_bad}"]).data
    stream = open_stream(config.model_copy(update={"path": str(write_dataset(folder, records)), "stages": ()}))
    assert isinstance(stream, RecordStream)
    return stream


def settings(*overrides: str) -> Config:
    own = ["run.steps=6", f"rollout.prompts_per_step={PROMPTS}", "loop.max_staleness=1", "sync.parity_prompts=2"]
    return load_config("demo", [*own, *overrides])


def run(
    stream: RecordStream, pool: Pool, learner: Learner, *overrides: str, rewards: Rewards | None = None
) -> Recorder:
    recorder = Recorder()
    components = Components(pool, rewards or Rewards(), learner, recorder=recorder, checkpoints=recorder)
    train(settings(*overrides), components, PromptSampler(stream, stream.config, PROMPTS), learner.version)
    return recorder


def sequence(stream: RecordStream, steps: int = 6) -> list[str]:
    sampler = PromptSampler(stream, stream.config, PROMPTS)
    return [prompt.example.id for step in range(steps) for prompt in sampler.batch(step)]


@pytest.mark.parametrize("where", ["engine", "learner"])
def test_record_that_cannot_be_shown_is_replaced_in_its_batch(where: str, tmp_path: Path) -> None:
    stream = opened(tmp_path / "data")
    usual = sequence(stream)
    blind = [usual[4], usual[11]]
    pool, learner = BlindPool(blind if where == "engine" else ()), BlindLearner(blind if where == "learner" else ())
    recorder = run(stream, pool, learner)
    assert learner.trained == list(range(18))
    assert [(a, b) for a, b in zip(usual, learner.records, strict=True) if a != b] == [
        (usual[k], learner.records[k]) for k in range(18) if usual[k] in blind
    ]
    assert not set(blind) & set(learner.records)
    assert [(found.id, found.step) for found in stream.bad] == [(blind[0], 2), (blind[1], 4)]
    assert {found.reason for found in stream.bad} == {"no image" if where == "engine" else "no image here"}
    assert [row["groups/bad"] for row in recorder.rows] == [0, 1, 0, 1, 0, 0]
    assert [groups["trained"] for groups in recorder.groups_by_status][1] == [3, 4, 5]
    assert learner.records == sequence(stream)


def test_replacement_that_is_bad_too_is_replaced(tmp_path: Path) -> None:
    stream = opened(tmp_path / "data")
    usual = sequence(stream)
    probe = opened(tmp_path / "data")
    first = PromptSampler(probe, probe.config, PROMPTS).set_aside(Prompt(4, probe.of_task("vqa", 4)), "known")
    blind = [usual[4], first.example.id]
    learner = BlindLearner(())
    recorder = run(stream, BlindPool(blind), learner)
    assert recorder.rows[1]["groups/bad"] >= 2
    assert not set(blind) & set(learner.records)
    assert {found.id for found in stream.bad} == set(blind)


def test_bad_record_of_the_parity_probe_is_replaced(tmp_path: Path) -> None:
    for where, other in (("engine", "learner"), ("learner", "engine")):
        stream = opened(tmp_path / where)
        blind = {where: [sequence(stream)[0]], other: ()}
        pool, learner = BlindPool(blind["engine"]), BlindLearner(blind["learner"])
        run(stream, pool, learner, "run.steps=1")
        assert [found.id for found in stream.bad] == list(blind[where])
        assert learner.records == sequence(stream, 1)


def test_resampled_prompt_of_a_bad_record_is_replaced_under_its_id(tmp_path: Path) -> None:
    stream = opened(tmp_path / "data")
    sampler = PromptSampler(stream, stream.config, PROMPTS)
    blind = [sampler.replacement(sampler.prompt(1), 1).example.id]
    rewards = Rewards(lambda group_id: group_id >= REPLACEMENT_OFFSET or group_id % PROMPTS != 1)
    learner = BlindLearner(())
    recorder = run(stream, BlindPool(blind), learner, "loop.resample=1", "run.steps=1", rewards=rewards)
    assert learner.trained == [0, REPLACEMENT_OFFSET + 1, 2]
    assert not set(blind) & set(learner.records)
    assert recorder.rows[0]["groups/bad"] == recorder.rows[0]["groups/resampled"] == 1


def test_run_ends_when_too_many_records_are_bad(tmp_path: Path) -> None:
    stream = opened(tmp_path / "data", max_bad=0.1)
    blind = sorted(set(sequence(stream)))[:8]
    with pytest.raises(DataError, match=r"at most 10\.00% bad records \(data\.max_bad\), found 4 of 30: record"):
        run(stream, BlindPool(blind), BlindLearner(()))


def test_resumed_run_trains_on_the_same_records_as_an_uninterrupted_one(tmp_path: Path) -> None:
    class Training(CrashingLearner):
        def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
            metrics = super().step(groups, upcoming)
            trained[self.version] = [group.prompt.example.id for group in groups]
            return metrics

    trained: dict[int, list[str]] = {}
    stream = opened(tmp_path / "data")
    usual = sequence(stream)
    config = settings(f"run.dir={tmp_path}", "run.name=a", "checkpoint.every=1", "evaluation.num_examples=0")
    config = config.model_copy(update={"run": config.run.model_copy(update={"restarts": 0}), "data": stream.config})
    remaining = [2, 5]
    while True:
        # Every attempt is a new process, which knows of bad records only what the run directory says.
        ready = Ready(Path("model"), open_stream(stream.config), ("vqa",))
        parts = Components(BlindPool([usual[1], usual[7]]), Rewards(), Training(remaining, LostError))
        try:
            summary = execute(config, ready, lambda config, ready, parts=parts: parts, Console(quiet=True))
            break
        except LostError:
            continue
    listed = [json.loads(line) for line in (tmp_path / "a" / "bad_records.jsonl").read_text().splitlines()]
    assert [(row["id"], row["step"], row["reason"]) for row in listed] == [
        (usual[1], 1, "no image"),
        (usual[7], 3, "no image"),
    ]
    assert summary["bad_records"] == 2
    found = [name for step in sorted(trained) for name in trained[step]]
    assert found == sequence(ready.stream)  # type: ignore[arg-type]


def test_held_out_example_that_is_lost_during_training_is_left_out_before_and_after(tmp_path: Path) -> None:
    class LosingPool(Pool):
        def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
            groups = [replace(group, samples=group.samples[:1]) for group in self.sample(prompts)]
            lost = [self.version == 2 and group.prompt.example.id == "h1" for group in groups]
            return [SampleGroup(g.prompt, (), "lost") if gone else g for g, gone in zip(groups, lost, strict=True)]

    records = [example(k, ("a.png",)) for k in range(6)]
    records += [example(k, (f"{k}.png",), id=f"h{k}", split="test") for k in range(3)]
    folder = write_dataset(tmp_path / "data", records)
    config = settings(f"run.dir={tmp_path}", "run.name=a", "run.steps=2", "evaluation.num_examples=3", "data.stages=[]")
    data = config.data.model_copy(update={"source": "parquet", "path": str(folder), "max_bad": 0.5})
    config = config.model_copy(update={"data": data})
    ready = Ready(Path("model"), open_stream(config.data), ("vqa",))
    components = Components(LosingPool(), Rewards(), Learner())
    summary = execute(config, ready, lambda config, ready: components, Console(quiet=True))
    left = ["h0", "h2"]
    for when in ("before", "after"):
        rows = [json.loads(line) for line in (tmp_path / "a" / f"heldout_{when}.jsonl").read_text().splitlines()]
        assert [(row["mode"], row["id"]) for row in rows] == [(m, name) for m in ("sampled", "greedy") for name in left]
        assert summary["heldout"]["greedy"][when]["n"] == len(left)
    assert [(found.id, found.step) for found in ready.stream.bad] == [("h1", 2)]


def sampled(name: str, text: str) -> SampleGroup:
    sample = Sample((1,), (-1.0,), f"<think></think><answer>{text}</answer>", "stop", 0)
    return SampleGroup(Prompt(int(name), example(int(name), target=text)), (sample,) * 2)


def test_record_that_cannot_be_scored_is_named_and_others_keep_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    form = REWARDS["equivalence"]

    def score(answers: Sequence[str], *arguments: Any) -> Any:
        if "broken" in answers:
            raise KeyError("no such category")
        return form.score(answers, *arguments)

    monkeypatch.setitem(REWARDS, "equivalence", replace(form, score=score))
    groups = [sampled("0", "yes"), sampled("1", "broken"), sampled("2", "no")]
    scored = score_groups(groups, RewardConfig(), None)
    assert [group.problem for group in scored] == ["", "it cannot be scored: KeyError: 'no such category'", ""]
    assert [group.rewards for group in scored] == [(2.0, 2.0), (0.0, 0.0), (2.0, 2.0)]
    assert scored[1].samples[0].reward == RewardScore(0.0, 0.0, 0.0, status="invalid_record")
