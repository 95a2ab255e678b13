"""Benchmark records that cannot be shown: named and left out, up to data.max_bad of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.sampler import HELD_OUT_SEED
from geovlm_ray.evaluation.results import read_results
from geovlm_ray.training.benchmark_evaluation import in_loop_evaluation
from tests.system.test_evaluation import FakeEngines, in_loop_config, run


class BlindEngines(FakeEngines):
    """Engines that cannot show the first ``blind`` synthetic scenes."""

    def __init__(self, blind: int) -> None:
        super().__init__()
        self.ids = {f"vqa-{HELD_OUT_SEED}-{k}" for k in range(blind)}

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Any:
        for groups in super().submit(prompts, **sampling):
            bad = groups[0].prompt.example.id in self.ids
            yield [SampleGroup(groups[0].prompt, (), "no image")] if bad else groups


def test_record_that_cannot_be_shown_is_left_out_and_named(tmp_path: Path) -> None:
    console, engines = Console(record=True, width=400), BlindEngines(2)
    results = run(tmp_path, engines, "drawn-vqa", limit=None, console=console)
    assert results.benchmarks["drawn-vqa"].n == 198
    named = f"2 of 200 records (1.00%) are set aside, first: record 'vqa-{HELD_OUT_SEED}-0'"
    assert named in results.left_out["drawn-vqa"]
    assert f"drawn-vqa: {named}" in " ".join(console.export_text().split())
    listed = (tmp_path / "predictions" / "drawn-vqa.bad_records.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in listed] == ["no image"] * 2
    again = FakeEngines()
    assert run(tmp_path, again, "drawn-vqa", limit=None) == results
    assert not again.submitted


def test_benchmark_with_too_many_bad_records_is_not_evaluated(tmp_path: Path) -> None:
    results = run(tmp_path, BlindEngines(3), "drawn-vqa", "drawn-scene_classification", limit=None)
    assert list(results.benchmarks) == ["drawn-scene_classification"]
    assert results.absent["drawn-vqa"].startswith(
        "benchmark drawn-vqa: expected at most 1.00% bad records (data.max_bad), found 3 of 200: record"
    )


def test_in_loop_evaluation_leaves_a_bad_record_out(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path, "data.max_bad=0.5")
    evaluation = in_loop_evaluation(config, DATASET_FORMAT, BlindEngines(1), checkpoints, start=0)  # type: ignore[arg-type]
    assert evaluation is not None
    evaluation.begin(2)
    evaluation.finish()
    found = read_results(config.run.folder / "evaluations" / "step-000002")["benchmarks"]
    assert {name: result["n"] for name, result in found.items()} == {
        "drawn-vqa": 4,
        "drawn-object_detection": 5,
    }
