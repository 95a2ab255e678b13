"""A run that cannot learn ends by itself, and says why."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from geovlm_ray.training.stuck import STUCK_STEPS
from tests.system.runs import MINUTES, arguments, environment

pytestmark = pytest.mark.slow
BROKEN = """
from pathlib import Path

def score(response, target):
    # As a service that ends after the checks before the run.
    if (Path(__file__).parent / "stuck" / "config.yaml").exists():
        raise ConnectionError("the judge does not answer")
    return 1.0
"""


def test_run_whose_reward_function_fails_is_saved_and_ends_with_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    reward = f"reward.function={tmp_path / 'broken.py'}:score"
    command = arguments(tmp_path, "stuck", 2 * STUCK_STEPS, "--local", reward)
    result = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )
    assert result.returncode == 3, result.stderr[-4000:]
    message = result.stderr.strip().splitlines()[-1]
    assert f"step {STUCK_STEPS}: no well-formed completion was scored (status: error), so nothing is learnt" in message
    run = tmp_path / "stuck"
    assert (run / "checkpoints" / f"step-{STUCK_STEPS:06d}").is_dir()
    kinds = [json.loads(line)["kind"] for line in (run / "warnings.jsonl").read_text().splitlines()]
    assert "nothing_scored" in kinds
