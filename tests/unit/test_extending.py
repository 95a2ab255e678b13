"""A custom reward form, scenes of a custom task, and a reader; docs/extending.md shows this code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, reward_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_boxes
from geovlm_ray.data.answers import response_text
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Format, Source, Unit, image_reference
from geovlm_ray.data.formats.streams import lines, source_files
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.scene_tasks import BUILDERS, Record, Rng, object_detection
from geovlm_ray.data.sources import open_stream
from geovlm_ray.data.table import Row
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rewards import Embedder, RewardConfig, score_batch
from geovlm_ray.rewards.base import RewardResult, RewardSpec
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS, Task
from tests.unit.reward_examples import accuracy, example


def object_counting(rng: Rng) -> Record:
    """Scene whose objects are to be counted."""
    scene = object_detection(rng)
    count = str(len(target_boxes(scene.target)))
    question = "how many objects are in the image ?"
    return dataclasses.replace(scene, question=question, target=count, reasoning=f"i count {count} .", answer=count)


def test_scenes_of_a_custom_task(monkeypatch: pytest.MonkeyPatch, encoder: PromptEncoder) -> None:
    # The name, the target kind, the instruction, the paper's reward and the default reward.
    task = Task("object_counting", "vqa", "Answer with a number.", "jaccard", "equivalence")
    monkeypatch.setitem(TASKS, task.name, task)
    monkeypatch.setitem(BUILDERS, task.name, object_counting)

    config = load_config("demo", ["data.stages=[{tasks: [object_counting], steps: 1}]"]).data
    scene = PromptSampler(open_stream(config), config, batch_size=1).prompt(0).example
    instructed = PromptEncoder(encoder.processor, encoder.config.model_copy(update={"instructions": True}))
    assert "how many objects are in the image ?\nAnswer with a number." in instructed.text(scene)
    responses = [response_text(scene), "<think>i guess .</think><answer>9</answer>"]
    assert [score.total for score in score_batch(responses, [scene, scene], RewardConfig())] == [2.0, 1.0]
    answered = [AnsweredExample(str(scene.target), scene), AnsweredExample("9", scene)]
    assert paper_metrics(answered) == {"VQA accuracy": 0.5}


NUMBER = re.compile(r"[0-9]{1,6}")


def closeness(
    answers: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[RewardResult]:
    """Ratio of the smaller to the larger number; exact match for other answers."""
    results = []
    for answer, record in zip(answers, examples, strict=True):
        predicted, expected = answer.strip(), str(record.target)
        if NUMBER.fullmatch(predicted) and NUMBER.fullmatch(expected):
            smaller, larger = sorted((int(predicted), int(expected)))
            results.append(RewardResult(smaller / larger if larger else 1.0, {"off": float(larger - smaller)}))
        else:
            results.append(RewardResult(float(predicted == expected)))
    return results


def test_custom_reward_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # The name, and the target kind that it scores.
    monkeypatch.setitem(REWARDS, "closeness", RewardSpec(closeness, "vqa"))

    config = reward_config(["reward.forms.vqa=closeness"])
    assert config.form("vqa") == "closeness"
    expected = {"8": 1.0, "6": 0.75, "16": 0.5, "eight": 0.0, "9" * 5000: 0.0}
    assert {answer: accuracy(answer, example("vqa", "8"), "closeness") for answer in expected} == expected
    assert accuracy("yes", example("vqa", "yes"), "closeness") == 1.0


def units(source: Source) -> Iterator[Unit]:
    """One unit per line of each file."""
    for path in source_files(source, (".csv",)):
        yield from lines(path, source)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of one line."""
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


def test_custom_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The name for `data convert` and `data.source`.
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
