"""A task, a reward form and a reader that the package does not have: docs/extending.md shows these very lines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import reward_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import TASK_NAMES, Example, target_boxes
from geovlm_ray.data.answers import response_text
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.streams import lines, source_files
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.scene_tasks import BUILDERS, Record, Rng, object_detection
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.data.table import Row
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rewards import Embedder, RewardConfig, score_batch
from geovlm_ray.rewards.base import RewardResult, RewardSpec
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS, Task
from tests.unit.judging import accuracy, example


def object_counting(rng: Rng) -> Record:
    """Objects to count."""
    drawn = object_detection(rng)
    count = str(len(target_boxes(drawn.target)))
    question = "how many objects are in the image ?"
    return dataclasses.replace(drawn, question=question, target=count, reasoning=f"i count {count} .", answer=count)


def test_a_task(monkeypatch: pytest.MonkeyPatch, encoder: PromptEncoder) -> None:
    # geovlm_ray/core/schema.py, TASK_NAMES: its name, last, so that the scenes of the others stay as they are.
    monkeypatch.setattr("geovlm_ray.core.schema.TASK_NAMES", (*TASK_NAMES, "object_counting"))
    monkeypatch.setattr("geovlm_ray.data.scenes.SCENE_TASKS", (*SCENE_TASKS, "object_counting"))
    # geovlm_ray/tasks/__init__.py, TASKS: its kind of target, what a prompt asks for, the paper's reward, the default.
    task = Task("object_counting", "vqa", "Answer with a number.", "jaccard", "jaccard_robust")
    monkeypatch.setitem(TASKS, task.name, task)
    # geovlm_ray/data/scene_tasks.py, BUILDERS: how a scene of it is drawn.
    monkeypatch.setitem(BUILDERS, task.name, object_counting)

    scene = scene_example("object_counting", seed=0, index=0)
    asking = PromptEncoder(encoder.processor, encoder.config.model_copy(update={"instructions": True}))
    assert "how many objects are in the image ?\nAnswer with a number." in asking.text(scene)
    responses = [response_text(scene), "<think>i guess .</think><answer>9</answer>"]
    assert [score.total for score in score_batch(responses, [scene, scene], RewardConfig())] == [2.0, 1.0]
    answered = [AnsweredExample(str(scene.target), scene), AnsweredExample("9", scene)]
    assert paper_metrics(answered) == {"VQA accuracy": 0.5}


NUMBER = re.compile(r"[0-9]{1,6}")


def closeness(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Of two numbers the lesser over the greater; other answers have to be the same."""
    judged = []
    for answer, record in zip(answers, examples, strict=True):
        said, true = answer.strip(), str(record.target)
        if NUMBER.fullmatch(said) and NUMBER.fullmatch(true):
            less, more = sorted((int(said), int(true)))
            judged.append(RewardResult(less / more if more else 1.0, {"off": float(more - less)}))
        else:
            judged.append(RewardResult(float(said == true)))
    return judged


def test_a_reward_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # geovlm_ray/rewards/registry.py, REWARDS: its name, and the kind of target that it judges.
    monkeypatch.setitem(REWARDS, "closeness", RewardSpec(closeness, "vqa"))

    config = reward_config(["reward.forms.vqa=closeness"])
    assert config.form("vqa") == "closeness"
    eight = {"8": 1.0, "6": 0.75, "16": 0.5, "eight": 0.0, "9" * 5000: 0.0}
    assert {answer: accuracy(answer, example("vqa", "8"), "closeness") for answer in eight} == eight
    assert accuracy("yes", example("vqa", "yes"), "closeness") == 1.0


def units(source: Source) -> Iterator[Unit]:
    """Every line of every file."""
    for path in source_files(source, (".csv",)):
        yield from lines(path, source)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a line."""
    image, comma, name = unit.value.partition(",")
    if not comma or not name.strip():
        raise DataError(f"expected IMAGE,CLASS, found {unit.value!r}")
    yield Row(
        Example(
            id=f"{unit.file}-{unit.number}",
            task="scene_classification",
            images=(image_reference(image),),
            question="Which class does the scene belong to?",
            target=(name.strip(),),
        )
    )


def test_a_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # geovlm_ray/data/formats/__init__.py, FORMATS: its name, as `data convert` and `data.source` take it.
    monkeypatch.setitem(FORMATS, "csv", Format("lines IMAGE,CLASS", units, convert))

    source, out = tmp_path / "scenes.csv", tmp_path / "scenes"
    source.write_text("1.png,harbour\n2.png\n../3.png,harbour\n")
    assert main(["data", "convert", "csv", str(source), str(out), "--max-bad=1"]) == 0
    rows = [row.example for dataset in open_datasets(out) for _, _, row in dataset.rows()]
    assert [(row.images[0].rpartition("//")[2], row.target) for row in rows] == [("1.png", ("harbour",))]
    assert {item.source_record: item.reason for item in read_quarantine(out, "convert")} == {
        2: "expected IMAGE,CLASS, found '2.png'",
        3: "image: expected a path below the image root, found '../3.png'",
    }
