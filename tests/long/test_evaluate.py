"""Evaluation with real engines: through the actors, killed and gone on, during training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import TASK_NAMES
from tests.system.runs import COMMAND, environment, metrics, train

pytestmark = pytest.mark.slow

RECORDS = 40


def command(out: Path, *more: str) -> list[str]:
    """An evaluation of the tiny policy."""
    return [COMMAND, "evaluate", "tiny", "--out", str(out), *more]


def evaluated(out: Path, *more: str) -> dict[str, Any]:
    """The results of an evaluation that runs to its end."""
    done = subprocess.run(
        command(out, *more), env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return json.loads((out / "results.json").read_text())


def finished(out: Path) -> int:
    """Benchmarks whose predictions are all on the disk."""
    return len(list((out / "predictions").glob("*.parquet")))


def test_killed_in_the_middle_and_started_again_it_gives_the_same_numbers(tmp_path: Path) -> None:
    """Through two actors on Ray, in other batches than without the kill."""
    drawn = ("--benchmarks", "drawn", "--limit", str(RECORDS))
    actors = ("placement.rollout.actors=2", "placement.rollout.num_cpus=0.5")
    undisturbed = evaluated(tmp_path / "whole", *drawn, *actors)
    assert set(undisturbed["benchmarks"]) == {f"drawn-{task}" for task in TASK_NAMES}
    assert all(result["n"] == RECORDS for result in undisturbed["benchmarks"].values())
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(killed, *drawn, *actors),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not finished(killed):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert finished(killed) < len(TASK_NAMES), "it was killed too late"
    again = evaluated(killed, *drawn, *actors)
    assert again["benchmarks"] == undisturbed["benchmarks"]


def test_a_run_evaluates_on_the_way_and_keeps_its_best_checkpoints(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "run",
        5,
        *("evaluation.every=2", "evaluation.benchmarks=[drawn-vqa, drawn-scene_classification]"),
        *("evaluation.records=20", "loop.max_staleness=1", "checkpoint.keep=1", "checkpoint.every=5"),
    )
    found = {
        step: json.loads((run / "evaluations" / f"step-{step:06d}" / "results.json").read_text())["benchmarks"]
        for step in (0, 2, 4)
    }
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert set(best) == {"drawn-vqa", "drawn-scene_classification", "overall"}
    for name in ("drawn-vqa", "drawn-scene_classification"):
        scores = {step: found[step][name]["score"]["value"] for step in (2, 4)}
        assert best[name]["value"] == max(scores.values())
        assert scores[best[name]["step"]] == max(scores.values())
        assert (run / "checkpoints" / f"step-{best[name]['step']:06d}").is_dir()
    assert [row["evaluation/step"] for row in metrics(run) if "evaluation/step" in row]
    assert "evaluation" in (run / "report.html").read_text()
    undisturbed = train(tmp_path, "without", 5, "loop.max_staleness=1", "checkpoint.every=5")
    losses = [[row["loss/policy"] for row in metrics(folder)] for folder in (run, undisturbed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "the evaluation changes nothing of the training"


def test_the_model_of_an_evaluation_is_that_of_a_run(tmp_path: Path) -> None:
    run = train(tmp_path, "run", 2, "model.lora={rank: 4, alpha: 8}", "learner.lr=0.2", "learner.warmup_steps=0")
    results = evaluated_model(run, tmp_path / "adapter", "drawn-vqa")
    tiny = evaluated(tmp_path / "tiny", "--benchmarks", "drawn-vqa", "--limit", "20", "--local")
    assert results != tiny["benchmarks"], "the adapter changes the answers"
    assert load_config(str(tmp_path / "adapter" / "config.yaml")).prompt.image_size == 112


def evaluated_model(model: Path, out: Path, benchmark: str) -> dict[str, Any]:
    """Results of a benchmark on a model."""
    arguments = ["evaluate", str(model), "--out", str(out), "--benchmarks", benchmark, "--limit", "20", "--local"]
    done = subprocess.run(
        [COMMAND, *arguments], env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "results.json").read_text())["benchmarks"]
