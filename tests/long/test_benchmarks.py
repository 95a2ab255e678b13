"""Every benchmark runs in its smallest form and writes its figures."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.nodes import available
from tests.system.runs import MINUTES, environment

pytestmark = pytest.mark.slow
TOP = Path(__file__).parents[2]
NAMES = [
    file.stem
    for file in sorted((TOP / "benchmarks").glob("*.py"))
    if re.search(rf'(?:publish|record)\("{file.stem}"', file.read_text())
]
"""Modules of `benchmarks` that publish figures under their own name."""


def skip_reason(name: str) -> str | None:
    """Why a benchmark cannot run on this machine; None if it can."""
    if name.endswith("versus_trl") and importlib.util.find_spec("trl") is None:
        return "TRL is not installed"
    return available() if name == "faults" else None


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_in_its_smallest_form(name: str, tmp_path: Path) -> None:
    reason = skip_reason(name)
    if reason:
        pytest.skip(reason)
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--smoke", "--json", str(out)]
    done = subprocess.run(
        command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    content = json.loads(out.read_text())
    assert content["name"] == name
    assert content["smoke"] is True
    assert content["figures"]
    assert all(math.isfinite(figure["value"]) for figure in content["figures"]), content["figures"]
