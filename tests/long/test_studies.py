"""Short studies, from runs to result page."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from geovlm_ray.evaluation.studies.study import load_study
from tests.system.runs import COMMAND, environment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["format", "boxes", "sft-or-rl-noisy"])
def test_short_study_runs_and_writes_its_page(tmp_path: Path, name: str) -> None:
    command = [COMMAND, "study", name, "--short", "--out", str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in (tmp_path / "logs").glob("*.log"))
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}\n{logs}"
    study = load_study(name)
    page = (tmp_path / "page.md").read_text()
    assert study.title in page
    assert "undecided after 1 seed" in page
    runs_by_variant = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert set(runs_by_variant) == set(study.variants)
    for variant, runs in runs_by_variant.items():
        (run,) = runs.values()
        assert run["cpu_seconds"] > 0
        assert set(run["greedy"]) == {"all tasks", *study.tasks}
        if study.variants[variant].train:
            assert len(run["sampled"]["all tasks"]) == 4
    # Finished runs are not repeated.
    modified = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    subprocess.run(command, env=environment(), capture_output=True, timeout=300, check=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == modified
