"""A task of a recipe, fine-tuned, trained in one process and on Ray, and evaluated, with real engines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from geovlm_ray.cli import main
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.tasks import TASKS, extensions
from tests.system.runs import COMMAND, MINUTES, environment

pytestmark = pytest.mark.slow

RECIPE = """
tasks:
  object_counting: {target: vqa, instruction: Answer with a number., reward: rewards.py:count_error}
run: {name: counting, steps: 2}
prompt: {system: "", instructions: false, image_size: 112}
data: {source: parquet, path: counts}
placement: {reward: {num_cpus: 0}}
rollout: {prompts_per_step: 4, group_size: 2, max_tokens: 40, max_model_len: 512}
learner: {tokens_per_micro_batch: 2048}
sft: {steps: 3, batch_size: 4, eval_examples: 4, readers: 0}
"""
REWARD = """
def count_error(response, target, task):
    assert task == "object_counting"
    answer = response.split("<answer>")[1].split("</answer>")[0].strip()
    return {"accuracy": 1 / (1 + abs(int(answer) - int(target))) if answer.isdecimal() else 0.0, "counted": 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with recipe, reward, and converted records of the task; forgets the task afterwards."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "rewards.py").write_text(REWARD)
    lines = []
    for k in range(12):
        render_scene(scene_example("object_detection", 0, k).images[0]).save(folder / f"{k}.png")
        record = {"id": f"r{k}", "task": "object_counting", "images": [f"{k}.png"], "prompt": "how many ships ?"}
        lines.append(json.dumps({**record, "reference": str(k % 3), "split": "test" if k >= 8 else "train"}))
    (folder / "records.jsonl").write_text("\n".join(lines))
    assert main(["data", "convert", "samples", "records.jsonl", "counts", "--recipe", "recipe.yaml"]) == 0
    yield folder
    for registry in (TASKS, extensions._tasks):
        registry.pop("object_counting", None)


def check_rollouts(run_folder: Path) -> None:
    rows = [
        row for file in sorted(run_folder.glob("rollouts/step-*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    assert {row["task"] for row in rows} == {"object_counting"}
    assert len(rows) == 2 * 4 * 2
    # The function scored every well-formed completion.
    formed = [row for row in rows if row["status"] != "unparseable"]
    assert formed
    assert all(json.loads(row["components"])["counted"] == 1 for row in formed)


def test_task_is_fine_tuned_trained_in_one_process_and_evaluated(folder: Path) -> None:
    assert main(["sft", "recipe.yaml", "--out", "model"]) == 0
    assert main(["train", "recipe.yaml", "--local", "model.path=model", "run.name=local"]) == 0
    check_rollouts(folder / "runs" / "local")
    assert main(["evaluate", "runs/local", "--benchmarks", "counts", "--local", "--out", "out"]) == 0
    (result,) = json.loads((folder / "out" / "results.json").read_text())["benchmarks"].values()
    assert (result["task"], result["n"]) == ("object_counting", 4)
    assert "VQA accuracy" in result["paper"]


@pytest.mark.long
def test_actors_know_the_task(folder: Path) -> None:
    command = [COMMAND, "train", "recipe.yaml", "run.name=ray"]
    subprocess.run(command, cwd=folder, env=environment(), timeout=12 * MINUTES, check=True)
    check_rollouts(folder / "runs" / "ray")
