"""``geovlm-ray top``: the table of a run's actors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.observability.heartbeat import Heartbeat


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory without actors."""
    config = load_config("demo", ["run.name=first", "run.steps=50"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    return tmp_path


def top(run: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What ``top --once`` prints."""
    assert main(["top", str(run), "--once"]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_actor_has_a_row_and_a_stale_heartbeat_is_shown_as_silent(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [{"step": n, "reward/mean": n / 10, "seconds/step": 2.5} for n in (1, 12)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + '{"step": 13, "rew')
    heartbeat = Heartbeat()
    heartbeat.weight_version = 11
    with heartbeat.busy("stream", 16):
        heartbeat.start(run, "rollout-0", "first")
    heartbeat.stop("stream")
    stale = {**heartbeat.snapshot(), "actor": "rollout-1", "kind": "rollout", "time": time.time() - 42}
    (run / "actors" / "rollout-1.json").write_text(json.dumps(stale))
    driver = {**heartbeat.snapshot(), "actor": "driver", "kind": "driver", "state": "rollout", "queue": 3}
    (run / "actors" / "driver.json").write_text(json.dumps(driver))
    lines = top(run, capsys)
    assert lines[0] == "first  step 12/50  reward 1.200  2.5 s/step"
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [cell[0] for cell in cells] == ["driver", "rollout-0", "rollout-1"]
    assert [cell[1] for cell in cells] == ["waits for rollout", "stream", "silent (was: idle)"]
    assert (cells[0][4], cells[1][4]) == ("3", "-")
    assert [cell[8] for cell in cells][2] == "42 s ago"
    assert cells[1][5].endswith("tokens/s")
    assert all(cell[7].endswith("GiB") for cell in cells)


def test_run_without_heartbeats(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top(run, capsys) == ["first  step 0/50", "No actor has written a heartbeat yet."]


def test_folder_without_a_run_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", str(tmp_path), "--once"]) == 1
    error = capsys.readouterr().err.strip()
    assert error == f"geovlm-ray top: {tmp_path}: expected a run directory with a config.yaml, found none"
