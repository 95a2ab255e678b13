"""Evaluation with in-process engines: records, predictions, resumption, metrics and reports."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.core.schema import Example, Prompt, Sample, SampleGroup
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.scenes import demonstration
from geovlm_ray.evaluation.custom import custom_benchmarks
from geovlm_ray.evaluation.model import EvaluationSpec, evaluate
from geovlm_ray.evaluation.registry import find, is_path
from geovlm_ray.evaluation.results import Results, read_results
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.benchmark_evaluation import check_benchmarks, in_loop_evaluation
from geovlm_ray.training.checkpoint import CheckpointFolder

Answer = Callable[[Example], str]
TINY = model_folder("tiny")


def ideal(example: Example) -> str:
    """Response of a perfect model to a synthetic scene."""
    return demonstration(example)


def wrong(example: Example) -> str:
    """A well-formed response with a wrong answer."""
    return "<think>nothing</think><answer>giraffe</answer>"


class FakeEngines:
    """Fake engines: answer one prompt at a time, and raise KeyboardInterrupt after ``dies_after`` prompts."""

    def __init__(self, answer: Answer = ideal, dies_after: int = 10**9) -> None:
        self.answer = answer
        self.remaining = dies_after
        self.submitted: list[Prompt] = []

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Any:
        assert sampling == {"group_size": 1, "greedy": True}
        for prompt in prompts:
            if not self.remaining:
                raise KeyboardInterrupt
            self.remaining -= 1
            self.submitted.append(prompt)
            text = self.answer(prompt.example)
            if prompt.prefill:
                text = prompt.prefill + text.partition("<answer>")[2]
            yield [SampleGroup(prompt, (Sample((1, 2), (-1.0, -1.0), text, "stop", 0),))]

    def close(self) -> None: ...


def run(
    out: Path,
    engines: FakeEngines,
    *names: str,
    data: Path | None = None,
    limit: int | None = 12,
    reasoning: bool = False,
    console: Console | None = None,
    model: Path = TINY,
    accept: bool = False,
) -> Results:
    config = evaluation_config(load_config("demo"), model, out, data, limit)
    custom = custom_benchmarks([Path(name) for name in names if is_path(name)], out, lambda n, text: None)
    spec = EvaluationSpec(str(model), find([n for n in names if not is_path(n)]) + custom, data, limit, reasoning)
    output = console or Console(quiet=True)
    build = lambda config: engines  # noqa: E731
    return evaluate(spec, config, out, build, output, lambda n, text: None, accept_changes=accept)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("task", ["scene_classification", "vqa", "object_detection", "image_captioning"])
def test_perfect_model_scores_one_and_wrong_model_zero(tmp_path: Path, task: str) -> None:
    for answer, expected in ((ideal, 1.0), (wrong, 0.0)):
        result = run(tmp_path / answer.__name__, FakeEngines(answer), f"drawn-{task}").benchmarks[f"drawn-{task}"]
        assert result.score.value == pytest.approx(expected, abs=0.05)
        assert result.n == 12
        assert result.sound["format"].value == 1.0


def test_results_predictions_and_page_are_written(tmp_path: Path) -> None:
    results = run(tmp_path, FakeEngines(wrong), "drawn-vqa", "drawn-object_detection")
    written = read_results(tmp_path)["benchmarks"]
    assert {n: r["score"]["value"] for n, r in written.items()} == {
        n: r.score.value for n, r in results.benchmarks.items()
    }
    rows = pq.read_table(tmp_path / "predictions" / "drawn-vqa.parquet").to_pylist()
    assert [row["place"] for row in rows] == list(range(12))
    assert all(row["completion"] == wrong(None) for row in rows)  # type: ignore[arg-type]
    assert "drawn-vqa" in (tmp_path / "results.md").read_text()
    page = (tmp_path / "results.html").read_text()
    # Four of the best and of the worst of each benchmark.
    assert page.count('<div class="case">') == 16
    assert page.count("<h4>Lowest scores</h4>") == page.count("<h4>Highest scores</h4>") == 2
    assert page.count("data:image/jpeg") >= 16


@pytest.mark.parametrize("dies_after", [0, 1, 70, 100, 199])
def test_resumed_evaluation_equals_uninterrupted_evaluation(tmp_path: Path, dies_after: int) -> None:
    uninterrupted = run(tmp_path / "uninterrupted", FakeEngines(), "drawn-vqa", "drawn-scene_classification", limit=100)
    killed, resumed = FakeEngines(dies_after=dies_after), FakeEngines()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed, "drawn-vqa", "drawn-scene_classification", limit=100)
    results = run(tmp_path / "killed", resumed, "drawn-vqa", "drawn-scene_classification", limit=100)
    assert results == uninterrupted
    assert len(killed.submitted) + len(resumed.submitted) == 200, "every prompt must be generated once"


def test_finished_evaluation_starts_no_engine(tmp_path: Path) -> None:
    first = run(tmp_path, FakeEngines(), "drawn-vqa")
    engines = FakeEngines()
    assert run(tmp_path, engines, "drawn-vqa") == first
    assert not engines.submitted


def test_output_folder_rejects_other_weights_and_another_limit(tmp_path: Path) -> None:
    model = tmp_path / "model"
    for name, weights in (("model", b"one"), ("other", b"two")):
        shutil.copytree(TINY, tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    first = run(tmp_path / "out", FakeEngines(), "drawn-vqa", model=model)
    with pytest.raises(ConfigError, match=r"holds predictions for at most 12 records .* at most 5 records \(--limit\)"):
        run(tmp_path / "out", FakeEngines(), "drawn-vqa", model=model, limit=5)
    with pytest.raises(RunError, match=r"content: model .*/other/model\.safetensors: expected .*choose another --out"):
        run(tmp_path / "out", FakeEngines(), "drawn-vqa", model=tmp_path / "other")
    model.rename(tmp_path / "moved")
    assert run(tmp_path / "out", FakeEngines(), "drawn-vqa", model=tmp_path / "moved") == replace(
        first, model=str(tmp_path / "moved")
    )
    (tmp_path / "moved" / "model.safetensors").write_bytes(b"trained on")
    with pytest.raises(RunError, match=r"moved/model\.safetensors: expected xxh3:\w+, found xxh3:\w+; restore it"):
        run(tmp_path / "out", FakeEngines(), "drawn-vqa", model=tmp_path / "moved")


def test_missing_data_skips_only_its_benchmark(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    (tmp_path / "data").mkdir()
    results = run(tmp_path / "out", FakeEngines(), "rsicd", "drawn-vqa", "aid", data=tmp_path / "data", console=console)
    assert list(results.benchmarks) == ["drawn-vqa"]
    assert list(results.absent) == ["rsicd", "aid"]
    output = " ".join(console.export_text().split())
    assert f"rsicd: expected its data in {tmp_path / 'data' / 'rsicd'}, found none: get it from https://" in output
    assert "licence: not stated" in output
    assert "rsicd" in (tmp_path / "out" / "results.md").read_text()


def write_class_folders(folder: Path, split: str = "") -> Path:
    """Write a dataset of two classes with four images each."""
    for name in ("beach", "forest"):
        below = folder / split / name
        below.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((32, 32, 3), 20 * i, dtype=np.uint8)).save(below / f"{i}.png")
    return folder


def test_benchmark_source_is_converted_once(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data" / "aid")

    def beach(example: Example) -> str:
        return "<think>sand</think><answer>beach</answer>"

    results = run(tmp_path / "out", FakeEngines(beach), "aid", data=tmp_path / "data", limit=None)
    result = results.benchmarks["aid"]
    assert result.n == 8
    assert result.paper["Classification accuracy"] == result.score.value == 0.5
    assert result.published["Classification accuracy"] == {"GeoVLM-R1": 88.46, "EarthDial": 88.76}
    assert "88.46" in (tmp_path / "out" / "results.md").read_text()
    modified = (tmp_path / "out" / "data" / "aid" / "dataset.json").stat().st_mtime_ns
    run(tmp_path / "out", FakeEngines(beach), "aid", data=tmp_path / "data", limit=None)
    assert (tmp_path / "out" / "data" / "aid" / "dataset.json").stat().st_mtime_ns == modified


def test_missing_split_skips_only_its_benchmark(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data" / "rsicd", "train")
    results = run(tmp_path / "out", FakeEngines(), "rsicd", "drawn-vqa", data=tmp_path / "data")
    assert "rsicd" in results.absent["rsicd"]
    assert list(results.benchmarks) == ["drawn-vqa"]


def write_samples(file: Path, *answers: str) -> Path:
    """Write a sample file whose records share one image."""
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32)).save(file.parent / "a.png")
    lines = [
        {"id": f"r{k}", "task": "vqa", "images": ["a.png"], "prompt": "Is there a ship?", "reference": answer}
        for k, answer in enumerate(answers)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def test_changed_data_under_predictions_are_refused_by_file_and_accepted_on_request(tmp_path: Path) -> None:
    mine, data, out = write_samples(tmp_path / "mine.jsonl", "yes", "no"), tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_class_folders(data / "aid")
    first = run(out, FakeEngines(wrong), "aid", str(mine), data=data, limit=None)
    mine.touch()
    run(out, FakeEngines(wrong), "aid", str(mine), data=data, limit=None)
    write_samples(mine, "maybe", "no")
    (data / "aid" / "beach" / "0.png").unlink()
    message = (
        rf"evaluation folder {out} was begun with other content: benchmark aid names of images: expected .*; "
        rf"benchmark mine {mine}: expected xxh3:\w+, found xxh3:\w+; restore it, choose another --out, or continue with"
    )
    for names in (("aid", str(mine)), (str(mine), "aid", "drawn-vqa")):
        with pytest.raises(RunError, match=message):
            run(out, FakeEngines(wrong), *names, data=data, limit=None)
    engines = FakeEngines(wrong)
    results = run(out, engines, "aid", str(mine), "drawn-vqa", data=data, limit=None, accept=True)
    assert {prompt.example.task for prompt in engines.submitted} == {"vqa"}, "predictions are made again"
    assert {name: results.benchmarks[name] for name in first.benchmarks} == first.benchmarks
    (change,) = results.changes
    assert re.search(rf"benchmark mine {mine}: expected xxh3:\w+, found xxh3", change)
    assert all(change in (out / name).read_text() for name in ("results.md", "results.html"))
    assert read_results(out)["changes"] == results.changes
    assert run(out, FakeEngines(wrong), "aid", str(mine), data=data, limit=None).changes == results.changes


def test_duplicate_benchmark_names_are_rejected(tmp_path: Path) -> None:
    first, second = (str(write_samples(tmp_path / folder / "mine.jsonl", "yes")) for folder in ("a", "b"))
    for paths in ((first, second), (str(write_samples(tmp_path / "a" / "aid.jsonl", "yes")),)):
        with pytest.raises(DataError, match=r"expected a unique name, found another benchmark '(mine|aid)'"):
            run(tmp_path / "out", FakeEngines(), *paths)


def test_corrected_dataset_without_predictions_is_read_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"bad\n')
    with pytest.raises(DataError, match=r"mine\.jsonl: expected records .* found none: mine\.jsonl, record 1: "):
        run(tmp_path / "out", FakeEngines(), str(mine))
    write_samples(mine, "yes")
    assert run(tmp_path / "out", FakeEngines(wrong), str(mine)).benchmarks["mine-vqa"].n == 1


def test_quarantined_records_of_a_custom_dataset_are_reported(tmp_path: Path) -> None:
    mine = write_samples(tmp_path / "mine.jsonl", "yes", "no")
    mine.write_text(mine.read_text() + '{"bad\n')
    console = Console(record=True, width=400)
    results = run(tmp_path / "out", FakeEngines(wrong), str(mine), console=console)
    assert results.benchmarks["mine-vqa"].n == 2
    for report in (
        console.export_text(),
        *((tmp_path / "out" / f"results.{kind}").read_text() for kind in ("md", "html")),
    ):
        assert "quarantined 1 (reasons" in report


def test_broken_image_fails_only_its_benchmark(tmp_path: Path) -> None:
    def broken_image(example: Example) -> str:
        if example.task == "scene_classification":
            raise DataError("image broken.jpg: expected a decodable image")
        return ideal(example)

    console = Console(record=True, width=200)
    results = run(
        tmp_path / "out", FakeEngines(broken_image), "drawn-scene_classification", "drawn-vqa", console=console
    )
    assert list(results.benchmarks) == ["drawn-vqa"]
    assert results.absent == {"drawn-scene_classification": "image broken.jpg: expected a decodable image"}
    assert "drawn-scene_classification: image broken.jpg" in console.export_text()
    with pytest.raises(DataError, match=r"none of 1 benchmarks was evaluated; drawn-scene_classification: image"):
        run(tmp_path / "nothing", FakeEngines(broken_image), "drawn-scene_classification")


def test_failed_evaluation_leaves_the_folder_usable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 benchmarks was evaluated; aid: expected its data"):
        run(tmp_path, FakeEngines(), "aid")
    assert run(tmp_path, FakeEngines(), "drawn-vqa", limit=5).benchmarks["drawn-vqa"].n == 5


def test_limit_selects_records_evenly_and_deterministically(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data" / "aid")
    engines = [FakeEngines(wrong), FakeEngines(wrong)]
    for i, each in enumerate(engines):
        run(tmp_path / f"out{i}", each, "aid", data=tmp_path / "data", limit=4)
    first, second = ([p.example.id for p in e.submitted] for e in engines)
    assert first == second
    assert {Path(name).parent.name for name in first} == {"beach", "forest"}


def test_unknown_benchmark_suggests_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"'rsvqa-lrbn'.*did you mean 'rsvqa-lrben'"):
        find(["rsvqa-lrbn"])


def test_scores_are_sliced_by_size_and_number_of_objects(tmp_path: Path) -> None:
    result = run(tmp_path, FakeEngines(), "drawn-object_detection", limit=60).benchmarks["drawn-object_detection"]
    assert sum(part["n"] for part in result.slices["objects"].values()) == 60
    assert sum(part["n"] for part in result.slices["object size"].values()) == 60


def test_reasoning_ablation_removes_and_swaps_reasoning(tmp_path: Path) -> None:
    engines = FakeEngines()
    result = run(tmp_path, engines, "drawn-vqa", reasoning=True).benchmarks["drawn-vqa"]
    prefills = [prompt.prefill for prompt in engines.submitted]
    assert prefills[:12] == [""] * 12
    assert prefills[12:24] == ["<think></think><answer>"] * 12
    swapped = [p.removeprefix("<think>").removesuffix("</think><answer>") for p in prefills[24:]]
    own = [demonstration(p.example).removeprefix("<think>").partition("</think>")[0] for p in engines.submitted[:12]]
    assert sorted(swapped) == sorted(own)
    assert swapped != own
    for variant in ("removed", "swapped"):
        assert result.reasoning[f"{variant}: score"]["value"] == 1.0
        assert result.reasoning[f"{variant}: same answer"]["value"] == 1.0
        assert result.reasoning[f"{variant}: change of score"]["value"] == 0.0


def in_loop_config(tmp_path: Path, *more: str) -> tuple[Config, CheckpointFolder]:
    config = load_config(
        "demo",
        [
            *(f"run.dir={tmp_path}", "run.name=run", "evaluation.every=2", "evaluation.records=5"),
            *("evaluation.benchmarks=[drawn-vqa, drawn-object_detection]", *more),
        ],
    )
    return config, CheckpointFolder(config.run.folder / "checkpoints", keep=1)


def test_in_loop_evaluation_writes_results_and_best_steps(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path)
    evaluation = in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(), checkpoints, start=0)  # type: ignore[arg-type]
    assert evaluation is not None
    assert [evaluation.due(step) for step in range(4)] == [True, False, True, False]
    evaluation.begin(2)
    evaluation.finish()
    assert not evaluation.due(2)
    found = read_results(config.run.folder / "evaluations" / "step-000002")["benchmarks"]
    assert {name: result["n"] for name, result in found.items()} == {"drawn-vqa": 5, "drawn-object_detection": 5}
    best = json.loads((config.run.folder / "checkpoints" / "best.json").read_text())
    assert {name: entry["step"] for name, entry in best.items()} == {
        "drawn-vqa": 2, "drawn-object_detection": 2, "overall": 2
    }  # fmt: skip


def test_in_loop_metrics_are_returned_once(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path)
    evaluation = in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(wrong), checkpoints, start=0)  # type: ignore[arg-type]
    assert evaluation is not None
    evaluation.begin(2)
    found: dict[str, float] = {}
    while not found:
        found = evaluation.results()
    assert found == {
        "evaluation/step": 2, "evaluation/overall": 0, "evaluation/drawn-vqa": 0, "evaluation/drawn-object_detection": 0
    }  # fmt: skip
    assert evaluation.results() == {}


def test_evaluations_of_repeated_steps_are_moved_aside(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path)
    evaluation = in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(), checkpoints, start=0)  # type: ignore[arg-type]
    assert evaluation is not None
    for step in (2, 4):
        evaluation.begin(step)
    evaluation.finish()
    (config.run.folder / "checkpoints" / "step-000002").mkdir()
    resumed = in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(), checkpoints, start=2)  # type: ignore[arg-type]
    assert resumed is not None
    assert (resumed.due(2), resumed.due(4)) == (False, True)
    assert (config.run.folder / "evaluations" / "undone" / "step-000004-1" / "results.json").is_file()
    assert json.loads((config.run.folder / "checkpoints" / "best.json").read_text())["overall"]["step"] == 2


def test_closed_evaluation_writes_nothing_more(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path)
    generating, closed = threading.Event(), threading.Event()

    def answer(example: Example) -> str:
        generating.set()
        assert closed.wait(60)
        return ideal(example)

    evaluation = in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(answer), checkpoints, start=0)  # type: ignore[arg-type]
    assert evaluation is not None
    evaluation.begin(2)
    assert generating.wait(60)
    evaluation.close()
    closed.set()
    with pytest.raises(RunError, match="abandoned"):
        evaluation.finish()
    assert not list((config.run.folder / "evaluations").glob("step-*"))


def test_in_loop_benchmarks_require_their_data(tmp_path: Path) -> None:
    config, checkpoints = in_loop_config(tmp_path, "evaluation.benchmarks=[aid]")
    with pytest.raises(DataError, match=r"evaluation\.benchmarks: aid: expected its data in a folder aid below --data"):
        in_loop_evaluation(config, DATASET_FORMAT, FakeEngines(), checkpoints, start=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"evaluation\.benchmarks: aid: .*in a run: evaluation\.data"):
        check_benchmarks(config)


def test_benchmark_name_takes_precedence_over_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("drawn", "aid", "mine"):
        (tmp_path / name).mkdir()
    assert [is_path(name) for name in ("drawn", "aid", "mine", "elsewhere/mine", "nothing")] == [
        *(False, False, True, True, False)
    ]
