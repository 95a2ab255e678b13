"""Evaluation with vLLM engines: resumed after a kill, and during training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.tasks import TASKS
from tests.system.runs import COMMAND, environment, metrics, train

pytestmark = pytest.mark.slow

RECORDS = 40


def command(out: Path, *more: str) -> list[str]:
    """Command line that evaluates the tiny policy."""
    return [COMMAND, "evaluate", "tiny", "--out", str(out), *more]


def run_evaluation(out: Path, *more: str) -> dict[str, Any]:
    """Run an evaluation to the end; returns its results."""
    result = subprocess.run(
        command(out, *more), env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return json.loads((out / "results.json").read_text())


def values(results: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts of nested results, by path."""
    if isinstance(results, dict | list):
        items = results.items() if isinstance(results, dict) else enumerate(results)
        for key, value in items:
            yield from values(value, f"{path}/{key}")
    else:
        yield path, results


def count_finished(out: Path) -> int:
    """Number of benchmarks with complete predictions on disk."""
    return len(list((out / "predictions").glob("*.parquet")))


def test_resumed_evaluation_equals_uninterrupted_evaluation(tmp_path: Path) -> None:
    """Uses two Ray actors; the batches differ from those of the uninterrupted evaluation."""
    benchmarks = ("--benchmarks", "drawn", "--limit", str(RECORDS))
    actors = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5")
    uninterrupted = run_evaluation(tmp_path / "whole", *benchmarks, *actors)
    assert set(uninterrupted["benchmarks"]) == {f"drawn-{task}" for task in TASKS}
    assert all(result["n"] == RECORDS for result in uninterrupted["benchmarks"].values())
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(killed, *benchmarks, *actors),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not count_finished(killed):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert count_finished(killed) < len(TASKS), "the evaluation finished before it was killed"
    resumed = run_evaluation(killed, *benchmarks, *actors)
    # Embeddings differ in the last digits with the batch.
    assert dict(values(resumed["benchmarks"])) == pytest.approx(dict(values(uninterrupted["benchmarks"])), abs=1e-6)


def test_run_evaluates_during_training_and_keeps_its_best_checkpoints(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "run",
        5,
        *("evaluation.every=2", "evaluation.benchmarks=[drawn-vqa, drawn-scene_classification]"),
        *("evaluation.records=20", "loop.max_staleness=1", "checkpoint.keep=1", "checkpoint.every=5"),
    )
    evaluations = {
        step: json.loads((run / "evaluations" / f"step-{step:06d}" / "results.json").read_text())["benchmarks"]
        for step in (0, 2, 4)
    }
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert set(best) == {"drawn-vqa", "drawn-scene_classification", "overall"}
    for name in ("drawn-vqa", "drawn-scene_classification"):
        scores = {step: evaluations[step][name]["score"]["value"] for step in (2, 4)}
        assert best[name]["value"] == max(scores.values())
        assert scores[best[name]["step"]] == max(scores.values())
        assert (run / "checkpoints" / f"step-{best[name]['step']:06d}").is_dir()
    assert [row["evaluation/step"] for row in metrics(run) if "evaluation/step" in row]
    assert "evaluation" in (run / "report.html").read_text()
    uninterrupted = train(tmp_path, "without", 5, "loop.max_staleness=1", "checkpoint.every=5")
    losses = [[row["loss/policy"] for row in metrics(folder)] for folder in (run, uninterrupted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "evaluation changed the training"


def test_evaluating_a_run_uses_its_adapter_and_config(tmp_path: Path) -> None:
    run = train(tmp_path, "run", 2, "model.lora={rank: 4, alpha: 8}", "learner.lr=0.2", "learner.warmup_steps=0")
    results = evaluate_model(run, tmp_path / "adapter", "drawn-vqa")
    tiny = run_evaluation(tmp_path / "tiny", "--benchmarks", "drawn-vqa", "--limit", "20", "--local")
    assert results != tiny["benchmarks"], "the adapter did not change the answers"
    assert load_config(str(tmp_path / "adapter" / "config.yaml")).prompt.image_size == 112


def evaluate_model(model: Path, out: Path, benchmark: str) -> dict[str, Any]:
    """Evaluate a model on 20 records of a benchmark; returns the results."""
    arguments = ["evaluate", str(model), "--out", str(out), "--benchmarks", benchmark, "--limit", "20", "--local"]
    result = subprocess.run(
        [COMMAND, *arguments], env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((out / "results.json").read_text())["benchmarks"]
