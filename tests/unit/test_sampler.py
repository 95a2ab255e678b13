"""Order of prompts: mixture weights, epochs, curriculum stages, batch shards, replacements."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.mixture import Schedule, task_weights
from geovlm_ray.data.resolution import Resolution
from geovlm_ray.data.sampler import HELD_OUT_SEED, REPLACEMENT_OFFSET, PromptSampler, RecordStream, SceneStream, step_of
from geovlm_ray.data.sources import open_stream
from geovlm_ray.model.answer_format import answer_format
from geovlm_ray.model.families import FAMILIES

NUMBERS = {"vqa": 60, "image_captioning": 25, "object_detection": 15}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 records of three tasks for training, and 10 of each for testing."""
    references = {"vqa": "yes", "image_captioning": ["a ship ."], "object_detection": "[[10, 20, 30, 40]]"}
    records = [
        {"id": f"{split}-{task}-{i}", "task": task, "images": [f"{i}.png"], "prompt": "see [1, 2, 3, 4]?"}
        | {"reference": references[task], "split": split}
        for split, numbers in (("train", NUMBERS), ("test", dict.fromkeys(NUMBERS, 10)))
        for task, n in numbers.items()
        for i in range(n)
    ]
    path = tmp_path_factory.mktemp("records") / "all.jsonl"
    path.write_text("".join(f"{json.dumps(r)}\n" for r in records))
    return path


def stream(path: Path, **values: object) -> tuple[RecordStream, DataConfig]:
    config = DataConfig(source="samples", path=str(path), **values)  # type: ignore[arg-type]
    opened = open_stream(config)
    assert isinstance(opened, RecordStream)
    return opened, config


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12), st.integers(0, 3000))
def test_schedule_meets_every_quota_at_every_index(weights: list[int], n: int) -> None:
    schedule = Schedule(weights)
    counts = [0] * len(weights)
    for k in range(n):
        task, before = schedule[k]
        assert before == counts[task]
        counts[task] += 1
        if k % 97 == 0 or k == n - 1:
            assert all(abs(count - (k + 1) * w / sum(weights)) < 1 for count, w in zip(counts, weights, strict=True))


@pytest.mark.parametrize(
    ("mixture", "temperature", "expected"),
    [
        ("balanced", 1, {"vqa": 1 / 3, "image_captioning": 1 / 3, "object_detection": 1 / 3}),
        ("natural", 1, {"vqa": 0.6, "image_captioning": 0.25, "object_detection": 0.15}),
        ("temperature", 1, {"vqa": 0.6, "image_captioning": 0.25, "object_detection": 0.15}),
        ("temperature", 2, {task: n**0.5 / sum(m**0.5 for m in NUMBERS.values()) for task, n in NUMBERS.items()}),
        ("temperature", 1e9, {"vqa": 1 / 3, "image_captioning": 1 / 3, "object_detection": 1 / 3}),
    ],
)
def test_mixture_quotas_are_exact_over_ten_thousand_prompts(
    source: Path, mixture: str, temperature: float, expected: dict[str, float]
) -> None:
    opened, config = stream(source, mixture=mixture, temperature=temperature)
    sampler = PromptSampler(opened, config, 100)
    counts = Counter(p.example.task for step in range(100) for p in sampler.batch(step))
    for task, share in expected.items():
        assert math.floor(1e4 * share) <= counts[task] <= math.ceil(1e4 * share)
    assert counts.total() == 10_000


def test_rare_task_keeps_a_positive_weight() -> None:
    weights = task_weights([1_000_000_000, 1], "temperature", 1.0)
    assert weights[1] == 1
    assert task_weights([5, None], "natural", 1.0) == [1, 1]


def test_natural_mixture_samples_every_record_once_per_epoch(source: Path) -> None:
    opened, config = stream(source, mixture="natural")
    sampler = PromptSampler(opened, config, 50)
    epochs = [[p.example.id for step in (2 * e, 2 * e + 1) for p in sampler.batch(step)] for e in range(3)]
    assert all(len(set(epoch)) == 100 and all(i.startswith("train-") for i in epoch) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 400), st.integers(0, 50), st.sampled_from(["balanced", "natural", "temperature"]))
def test_resumed_sampler_continues_the_same_sequence(source: Path, start: int, steps: int, mixture: str) -> None:
    stages = [{"tasks": ["vqa", "object_detection"], "steps": 7}, {"tasks": ["image_captioning", "vqa"], "steps": 1}]
    opened, config = stream(source, mixture=mixture, stages=stages)
    uninterrupted = PromptSampler(opened, config, 3)
    expected = [uninterrupted.batch(step) for step in range(start + steps)]
    resumed = PromptSampler(*stream(source, mixture=mixture, stages=stages), 3)
    assert [resumed.batch(step) for step in range(start, start + steps)] == expected[start:]


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40))
def test_batch_shards_are_disjoint_and_complete(step: int, n: int, size: int) -> None:
    sampler = PromptSampler(SceneStream(0), DataConfig(), size)
    shards = [p for i in range(n) for p in sampler.batch(step, shard=(i, n))]
    assert sorted(p.group_id for p in shards) == [p.group_id for p in sampler.batch(step)]


def test_weights_of_a_stage_set_the_share_of_each_task() -> None:
    config = DataConfig.model_validate(
        {"stages": [{"steps": 1, "tasks": ["vqa", "object_detection"], "weights": [1, 3]}]}
    )
    sampler = PromptSampler(SceneStream(0), config, 8)
    examples = [prompt.example for step in range(5) for prompt in sampler.batch(step)]
    assert Counter(example.task for example in examples) == {"vqa": 10, "object_detection": 30}
    assert len({example.id for example in examples}) == 40


def test_weights_must_match_the_tasks() -> None:
    with pytest.raises(ValueError, match="weights: expected one for each of 1 tasks, found 2"):
        DataConfig.model_validate({"stages": [{"steps": 1, "tasks": ["vqa"], "weights": [1, 3]}]})


def test_stages_run_in_order_and_the_last_one_continues() -> None:
    stages = [{"tasks": ["vqa"], "steps": 2}, {"tasks": ["image_captioning", "vqa"], "steps": 1}]
    sampler = PromptSampler(SceneStream(0), DataConfig(stages=stages), 4)  # type: ignore[arg-type]
    tasks = [[p.example.task for p in sampler.batch(step)] for step in range(5)]
    assert tasks == [["vqa"] * 4] * 2 + [["image_captioning", "vqa"] * 2] * 3
    assert [p.group_id for step in range(5) for p in sampler.batch(step)] == list(range(20))


def test_replacement_is_an_unused_prompt_of_the_same_task(source: Path) -> None:
    opened, config = stream(source)
    sampler = PromptSampler(opened, config, 4)
    prompt = sampler.prompt(7)
    first = sampler.replacement(prompt, 1)
    second = sampler.replacement(first, 2)
    assert {p.example.task for p in (prompt, first, second)} == {prompt.example.task}
    assert (first.group_id, second.group_id) == (REPLACEMENT_OFFSET + 7, 2 * REPLACEMENT_OFFSET + 7)
    assert sampler.replacement(prompt, 1) == first
    assert len({step_of(p.group_id, sampler.batch_size) for p in (prompt, first, second)}) == 1


def test_held_out_examples_are_never_sampled(source: Path) -> None:
    opened, _ = stream(source)
    held = opened.held_out(("vqa", "object_detection"), 12)
    assert Counter(e.task for e in held) == {"vqa": 6, "object_detection": 6}
    assert {e.split for e in held} == {"test"}
    assert held == stream(source)[0].held_out(("vqa", "object_detection"), 12)
    scenes = SceneStream(0).held_out(("vqa", "object_detection", "visual_grounding"), 500)
    assert Counter(e.task for e in scenes) == dict.fromkeys(("vqa", "object_detection", "visual_grounding"), 167)
    assert {int(e.id.split("-")[-2]) for e in scenes} == {HELD_OUT_SEED}
    with pytest.raises(ValueError, match="seed"):
        DataConfig(seed=HELD_OUT_SEED)


@pytest.mark.parametrize(
    ("frame", "box", "question"),
    [
        ("percent", (10, 20, 30, 40), "see [1, 2, 3, 4]?"),
        ("dataset", (10, 20, 30, 40), "see [1, 2, 3, 4]?"),
        ("permille", (100, 200, 300, 400), "see [10, 20, 30, 40]?"),
        ((448, 224), (44.8, 44.8, 134.4, 89.6), "see [4, 4, 13, 9]?"),
    ],
)
def test_boxes_are_converted_to_the_answer_frame(source: Path, frame: object, box: tuple, question: str) -> None:
    opened, config = stream(source, frame=frame)
    opened.answers = answer_format(config, FAMILIES["qwen2_5_vl"], Resolution("fixed", 112, 28, 1, 10**6, 4))
    example = opened.example(opened.training_records("object_detection")[0])
    (found,) = example.target
    assert isinstance(found, Box)
    assert found.coords == pytest.approx(box)
    assert example.question == question


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"splits": ["val"]}, "split 'val', found splits: 'train', 'test'"),
        ({"stages": [{"tasks": ["change_captioning"], "steps": 1}]}, "records of task 'change_captioning', found only"),
    ],
)
def test_missing_splits_and_tasks_are_reported(source: Path, values: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        stream(source, **values)
    assert "all.jsonl" in str(error.value)
