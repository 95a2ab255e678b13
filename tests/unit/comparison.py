"""Runs and evaluations that the tests of the comparison compare."""

from __future__ import annotations

import argparse
import dataclasses
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich.console import Console

from geovlm_ray.commands import compare as command
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.schema import Example, Prompt, RewardScore, Sample, SampleGroup, target_boxes
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.data.scenes import demonstration
from geovlm_ray.evaluation.comparison.compare import Comparison, compare
from geovlm_ray.evaluation.comparison.sources import read_sources
from geovlm_ray.evaluation.comparison.terminal import print_comparison
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.evaluation.predictions import Predictions, prediction_row
from geovlm_ray.evaluation.results import RESULTS
from geovlm_ray.evaluation.validation import held_out_summary, rewards_of, validation_completions, write_completions
from geovlm_ray.observability.run_recorder import RunRecorder
from geovlm_ray.report.terminal import InertConsole
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.benchmark_evaluation import in_loop_evaluation
from geovlm_ray.training.checkpoint import CheckpointFolder
from geovlm_ray.training.health import HealthMonitor
from tests.system.test_run_records import ADVANTAGES, log

TASKS = ("vqa", "object_detection")
DRAWS = 1000


class Model:
    """Fake model: ideal answers to a fraction ``skill`` of the examples, wrong answers to the others."""

    def __init__(self, skill: float, name: str = "") -> None:
        self.skill, self.name = skill, name

    def answer(self, example: Example, greedy: bool) -> str:
        rng = np.random.default_rng(zlib.crc32(f"{self.name} {greedy} {example.id}".encode()))
        ideal = demonstration(example)
        if rng.random() < self.skill:
            return ideal
        if example.task == "object_detection":
            return ideal.partition("<answer>")[0] + "<answer>" + _jittered_boxes(example, rng) + "</answer>"
        return ideal.partition("<answer>")[0] + "<answer>something else</answer>"

    def generate(self, prompts: Sequence[Prompt], group_size: int, greedy: bool) -> list[SampleGroup]:
        return [SampleGroup(p, (sample(self.answer(p.example, greedy)),) * group_size) for p in prompts]

    def submit(self, prompts: Sequence[Prompt], group_size: int, greedy: bool) -> Iterator[list[SampleGroup]]:
        yield self.generate(prompts, group_size, greedy)


def _jittered_boxes(example: Example, rng: np.random.Generator) -> str:
    corners = (np.array(box.coords) + rng.normal(0, 6) for box in target_boxes(example.target))
    boxes = [np.clip(coords, 0, 100).round(1).tolist() for coords in corners]
    return json.dumps(boxes)


def sample(text: str) -> Sample:
    return Sample((1, 2), (-0.1, -0.2), text, "stop", 0)


def make_run(
    folder: Path, model: Model, *overrides: str, steps: int = 3, evaluated: Sequence[int] = (), scenes: int = 40
) -> Path:
    """Write a run directory as training leaves it, with completions and answers of ``model``."""
    config = load_config(
        "demo",
        [
            *(f"run.dir={folder.parent}", f"run.steps={steps}", f"evaluation.num_examples={scenes}"),
            *(f"data.stages=[{{steps: {steps}, tasks: [{', '.join(TASKS)}]}}]", "rollout.prompts_per_step=4"),
            *overrides,
        ],
    )
    config = config.model_copy(update={"run": config.run.model_copy(update={"name": folder.name})})
    folder.mkdir(parents=True)
    write_atomically(folder / "config.yaml", to_yaml(config))
    rewards, sampler = LocalRewards(config.reward), PromptSampler(SceneStream(0), config.data, 4)
    recorder = RunRecorder(folder, steps, Console(quiet=True), HealthMonitor("required", 64), ADVANTAGES)
    recorder.rewind(0)
    for step in range(1, steps + 1):
        improving = Model(model.skill * (0.4 + 0.6 * step / steps), f"{model.name} {step}")
        prompts = sampler.batch(step)
        log(recorder, step, rewards.score(improving.generate(prompts, 3, False)))
    recorder.close()
    prompts = [Prompt(i, e) for i, e in enumerate(SceneStream(0).held_out(TASKS, scenes))]
    rows = validation_completions(model, rewards, prompts, SceneStream(0).set_aside)
    found = rewards_of(rows)
    constants = {task: ConstantAnswer("", values) for task, values in found["greedy"].items()}
    for when in ("before", "after"):
        write_completions(rows, folder / f"heldout_{when}.jsonl")
    summary = {
        **{"seconds": 2.5, "steps": steps, "parity_max_abs": 1e-6},
        "heldout": held_out_summary(rows, rows, constants),
        "heldout_rewards": {"before": found, "after": found},
    }
    write_atomically(folder / "summary.json", json.dumps(summary))
    write_completions(rows, folder / "heldout_after.jsonl")
    if evaluated:
        evaluate(folder, model, *evaluated)
    return folder


def evaluate(run: Path, model: Model, *steps: int, records: int = 12, tasks: Sequence[str] = TASKS) -> None:
    """Write in-loop evaluations into a run directory."""
    config = load_config(
        "demo",
        [
            *(f"run.dir={run.parent}", "evaluation.every=1", f"evaluation.records={records}"),
            f"evaluation.benchmarks=[{', '.join(f'drawn-{task}' for task in tasks)}]",
        ],
    )
    config = config.model_copy(update={"run": config.run.model_copy(update={"name": run.name})})
    kept = CheckpointFolder(run / "checkpoints", keep=1)
    evaluation = in_loop_evaluation(config, DATASET_FORMAT, model, kept, start=max(steps))  # type: ignore[arg-type]
    assert evaluation is not None
    for step in steps:
        evaluation.begin(step)
    evaluation.finish()


def compare_folders(*folders: Path) -> Comparison:
    return compare(read_sources(folders), DRAWS, lambda done, text: None)


def terminal_output(found: Comparison) -> str:
    """Terminal output of a comparison."""
    console = InertConsole(record=True, width=160, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(found, console)
    return console.export_text()


def run_command(*arguments: object) -> int:
    """Run the command with these arguments and return its exit code."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(a) for a in arguments]))


def write_evaluation(folder: Path, examples: Sequence[Example], scores: Sequence[float], text: str = "ok") -> Path:
    """Write an evaluation folder with the given scores."""
    folder.mkdir(parents=True)
    predictions = Predictions(folder / "predictions", "b")
    scored = [dataclasses.replace(sample(text), reward=RewardScore(s, 1.0, s)) for s in scores]
    items = [SimpleNamespace(example=example, group=None) for example in examples]
    predictions.add([prediction_row(i, c, s) for i, (c, s) in enumerate(zip(items, scored, strict=True))])  # type: ignore[arg-type]
    predictions.finish()
    benchmark = {"title": "title", "task": "vqa", "n": len(scores), "paper": {"m": 0.5, "undefined": float("nan")}}
    write_atomically(folder / RESULTS, json.dumps({"model": "model", "benchmarks": {"b": benchmark}, "absent": {}}))
    return folder
