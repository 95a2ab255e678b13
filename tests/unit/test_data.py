"""Synthetic scenes and sample files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.core.geometry import iou_matrix
from geovlm_ray.core.schema import Box
from geovlm_ray.data.scene_draw import SCENE_SIZE, render
from geovlm_ray.data.scenes import demonstration, render_scene, scene_example, scenes_of
from geovlm_ray.data.sources import read_source
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_demonstrations_earn_the_full_reward(task: str) -> None:
    config = RewardConfig()
    examples = [scene_example(task, 3, k) for k in range(20)]
    scores = score_batch(
        [demonstration(e) for e in examples], examples, config, SbertEmbedder.from_config(config.sbert)
    )
    assert [s.total for s in scores] == pytest.approx([2.0] * 20)


@pytest.mark.parametrize("task", TASKS)
def test_scenes_are_determined_by_their_seed(task: str) -> None:
    first, again, other = (scene_example(task, seed, 7) for seed in (1, 1, 2))
    assert first == again
    images = [[np.asarray(render_scene(reference)) for reference in example.images] for example in (first, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*images, strict=True))
    assert not np.array_equal(images[0][0], np.asarray(render_scene(other.images[0])))


def test_boxes_enclose_their_objects() -> None:
    for k in range(20):
        example = scene_example("visual_grounding", 5, k)
        (scene,) = scenes_of(example)
        with_object, without = (
            np.asarray(render(s), dtype=int) for s in (scene, dataclasses.replace(scene, things=()))
        )
        rows, columns = np.nonzero(np.abs(with_object - without).max(axis=2) > 40)
        visible = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 100 / SCENE_SIZE
        (box,) = example.target
        assert isinstance(box, Box)
        # The object's shadow may reach beyond its box.
        assert iou_matrix([visible], [box.coords])[0, 0] > 0.6


def write_records(path: Path, *records: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def record(task: str, reference: object) -> dict:
    return {"id": "r", "task": task, "images": ["a.png"], "prompt": "[x] <image> \\n what ?", "reference": reference}


def test_sample_file_is_read_with_tasks_and_targets(tmp_path: Path) -> None:
    path = write_records(
        tmp_path / "s.jsonl",
        record("multilabel_classification_sar", ["Pastures", "Water bodies"]),
        record("change_detection_yes_no", "yes"),
        record("change_detection_boxes", "[[1, 2, 3, 4, 0]][[5, 6, 7, 8, 0]]"),
        record("vqa", None),
        record("damage_assessment", "Destroyed"),
    )
    table, _ = read_source("samples", path)
    examples = [table.row(i).example for i in range(len(table))]
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
        ("{", "expected a JSON object"),
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
def test_invalid_record_is_named_with_its_number(bad: object, message: str, tmp_path: Path) -> None:
    path = write_records(tmp_path / "s.jsonl", record("vqa", "yes"), bad)
    table, (unreadable,) = read_source("samples", path)
    assert len(table) == 1
    assert str(unreadable).startswith(f"{path}, record 2: ")
    assert message in unreadable.reason
