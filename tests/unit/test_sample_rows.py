"""Columns that the files of rollouts and of predictions share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.sample_rows import example_columns, read_rows, row_example, write_rows
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.evaluation import predictions
from geovlm_ray.evaluation.examples import BenchmarkExample
from geovlm_ray.observability.run_recorder import ROLLOUT_SCHEMA, rollout_rows

SAMPLE = Sample((1, 2), (-0.1, -0.2), "<think>é", "stop", 3, RewardScore(1.5, 1.0, 0.5, {"iou": 0.5}), ((1, 4),))
ROLLOUT_COLUMNS = """
step int32, group_id int64, group_status string, example_id string, task string, images list<element: string>,
pixels string, question string, target string, frame string, dialect string, sample int32, completion string,
token_ids list<element: int32>, logprobs list<element: float>, finish_reason string, weight_version int32,
weight_updates string,
loss_mask list<element: bool>, sample_images list<element: string>,
reward double, format double, accuracy double, components string, status string, advantage double
"""
PREDICTION_COLUMNS = """
place int64, example_id string, task string, dataset string, images list<element: string>, pixels string,
question string, target string, frame string, dialect string, labels list<element: string>, group string, gsd double,
sensor string, completion string, tokens int32, confidence double, finish_reason string, format double, score double,
components string, status string
"""


def columns(file: Path) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in pq.read_schema(file))


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_example_and_completion_are_read_back(task: str, tmp_path: Path) -> None:
    pixels = PixelSettings((3, 2, 1), (1.0, 99.0), (0.0, 1e4), 0.0)
    scene = scene_example(task, seed=0, index=1)
    example = replace(scene, gsd=0.5, sensor="S2", frame=Frame("pixel", 64, 32), pixels=pixels, split="train")
    rollouts, answers = tmp_path / "step-000001.parquet", tmp_path / "b.parquet"
    group = SampleGroup(Prompt(7, example), (SAMPLE,))
    write_rows(rollouts, rollout_rows(1, {"trained": [group]}, lambda groups: {7: [0.25]}), ROLLOUT_SCHEMA)  # type: ignore[arg-type,return-value]
    row = predictions.prediction_row(5, BenchmarkExample(example, "rural"), SAMPLE)
    write_rows(answers, [row], predictions.SCHEMA)
    (rollout,), (answer,) = read_rows(rollouts), read_rows(answers)
    assert row_example(answer) == example
    assert row_example(rollout) == replace(example, dataset="", labels=(), gsd=None, sensor=None)
    assert rollout["completion"] == answer["completion"] == SAMPLE.text
    assert (rollout["reward"], rollout["accuracy"], answer["score"]) == (1.5, 0.5, 0.5)
    assert (rollout["weight_updates"], rollout["advantage"], answer["group"]) == ("[[1, 4]]", 0.25, "rural")
    assert read_rows(answers, ["place"]) == [{"place": 5}]


def test_files_have_their_documented_columns(tmp_path: Path) -> None:
    for schema, expected in ((ROLLOUT_SCHEMA, ROLLOUT_COLUMNS), (predictions.SCHEMA, PREDICTION_COLUMNS)):
        write_rows(tmp_path / "rows.parquet", [], schema)
        assert columns(tmp_path / "rows.parquet") == " ".join(expected.split())


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(DataError, match=r"junk\.parquet: expected a Parquet file of completions, found: ") as error:
        read_rows(tmp_path / "junk.parquet")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"absent\.parquet: expected a file, found none"):
        read_rows(tmp_path / "absent.parquet")


def test_file_of_other_columns_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"example_id": ["a"], "task": ["vqa"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: expected the column 'images', found only example_id, task"):
        read_rows(tmp_path / "other.parquet")


@pytest.mark.parametrize("changed", [{"target": "["}, {"task": "none"}, {"frame": None}, {"pixels": "[]"}])
def test_invalid_columns_of_an_example_are_named(changed: dict[str, Any]) -> None:
    row = example_columns(scene_example("vqa", 0, 0))
    assert row_example(row).task == "vqa"
    with pytest.raises(DataError, match=f"record '{row['example_id']}': "):
        row_example({**row, **changed})
