"""Drawn scenes, sample files, and the order in which prompts are drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.sampler import HELD_OUT_SEED, RecordStream, Sampler, SceneStream, held_out_scenes
from geovlm_ray.data.samples import read_samples
from geovlm_ray.data.scene_draw import SCENE_SIZE, render
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, draw, scene_example, scenes_of
from geovlm_ray.errors import DataError
from geovlm_ray.geometry import iou_matrix
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.schema import TASK_NAMES, Box, Example


@pytest.mark.parametrize("task", TASK_NAMES)
def test_demonstrations_earn_the_full_reward(task: str) -> None:
    config = RewardConfig()
    examples = [scene_example(task, 3, k) for k in range(20)]
    scores = score_batch(
        [demonstration(e) for e in examples], examples, config, SbertEmbedder.from_config(config.sbert)
    )
    assert [s.total for s in scores] == pytest.approx([2.0] * 20)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_scenes_are_functions_of_their_seed(task: str) -> None:
    first, again, other = (scene_example(task, seed, 7) for seed in (1, 1, 2))
    assert first == again
    pictures = [[np.asarray(draw(reference)) for reference in example.images] for example in (first, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))
    assert not np.array_equal(pictures[0][0], np.asarray(draw(other.images[0])))


def test_boxes_lie_on_what_they_name() -> None:
    for k in range(20):
        example = scene_example("visual_grounding", 5, k)
        (scene,) = scenes_of(example)
        with_object, without = (
            np.asarray(render(s), dtype=int) for s in (scene, dataclasses.replace(scene, things=()))
        )
        rows, columns = np.nonzero(np.abs(with_object - without).max(axis=2) > 40)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 100 / SCENE_SIZE
        (box,) = example.target
        assert isinstance(box, Box)
        # The object's shadow may reach beyond its box.
        assert iou_matrix([seen], [box.coords])[0, 0] > 0.6


def test_held_out_scenes_come_in_equal_parts_and_are_never_trained_on() -> None:
    prompts = held_out_scenes(("vqa", "object_detection", "visual_grounding"), 500)
    tasks = [p.example.task for p in prompts]
    assert len(prompts) == 501
    assert {tasks.count(t) for t in set(tasks)} == {167}
    assert {int(p.example.id.split("-")[-2]) for p in prompts} == {HELD_OUT_SEED}
    with pytest.raises(ValueError, match="seed"):
        DataConfig(seed=HELD_OUT_SEED)


def test_batches_depend_on_seed_and_step_alone() -> None:
    config = DataConfig(stages=({"steps": 2, "tasks": ("vqa",)}, {"steps": 1, "tasks": ("image_captioning", "vqa")}))  # type: ignore[arg-type]
    sampler = Sampler(SceneStream(0), config, 4)
    batches = [sampler.batch(step) for step in range(4)]
    assert [p.group_id for batch in batches for p in batch] == list(range(16))
    assert {p.example.task for batch in batches[:2] for p in batch} == {"vqa"}
    assert [p.example.task for p in batches[3]] == ["image_captioning", "vqa"] * 2
    assert Sampler(SceneStream(0), config, 4).batch(3) == batches[3]


def test_records_are_shuffled_anew_every_epoch_and_each_drawn_once() -> None:
    records = [scene_example(SCENE_TASKS[k % 3], 0, k) for k in range(10)]
    stream = RecordStream(records, 0, "file")
    epochs = [[stream.any(10 * e + k).id for k in range(10)] for e in range(3)]
    assert all(sorted(epoch) == sorted(r.id for r in records) for epoch in epochs)
    assert epochs[0] != epochs[1]


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def record(task: str, reference: object) -> dict:
    return {"id": "r", "task": task, "images": ["a.png"], "prompt": "[x] <image> \\n what ?", "reference": reference}


def test_samples_are_read_with_their_tasks_and_targets(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.jsonl",
        record("multilabel_classification_sar", ["Pastures", "Water bodies"]),
        record("change_detection_yes_no", "yes"),
        record("change_detection_boxes", "[[1, 2, 3, 4, 0]][[5, 6, 7, 8, 0]]"),
        record("vqa", None),
        record("damage_assessment", "Destroyed"),
    )
    examples: list[Example] = list(read_samples(path))
    assert [e.task for e in examples] == ["multilabel_classification", "vqa", "object_detection", "damage_assessment"]
    assert [e.target for e in examples] == [
        ("Pastures", "Water bodies"),
        "yes",
        (Box((1, 2, 3, 4, 0)), Box((5, 6, 7, 8, 0))),
        ("Destroyed",),
    ]
    assert examples[0].question == "[x] what ?"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2"),
        ("3", "expected an object"),
        ({"id": "a", "task": "vqa", "images": ["a"], "reference": "x"}, "'prompt'"),
        (record("segmentation", "x"), "segmentation"),
        (record("vqa", ["a"]), "expected a string"),
        (record("object_detection", "nothing"), "expected boxes"),
        ({**record("vqa", "x"), "images": []}, "images"),
        ({**record("vqa", "x"), "prompt": " <image> "}, "prompt"),
        ({**record("vqa", "x"), "task": ["vqa"]}, "task"),
    ],
)
def test_bad_records_are_named_with_their_line(bad: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", record("vqa", "yes"), bad)
    with pytest.raises(DataError, match=message) as error:
        list(read_samples(path))
    assert "s.jsonl, line 2" in str(error.value)
