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


def cells_of(lines: list[str]) -> tuple[str, list[dict[str, str]]]:
    """The line above the table, and the cells of each row by column; no row is wider than 80 characters."""
    assert max(map(len, lines)) <= 80
    names = lines[1].split()
    starts = [lines[1].index(f"{name}") for name in names]
    rows = []
    for line in lines[2:]:
        ends = [*starts[1:], len(line)]
        rows.append({name: line[a:b].strip() for name, a, b in zip(names, starts, ends, strict=True)})
    return lines[0], rows


def test_every_actor_has_a_row_and_a_stale_heartbeat_is_shown_as_silent(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setenv("COLUMNS", "80")
    head, cells = cells_of(top(run, capsys))
    assert head == "first  step 12/50  reward 1.200  2.5 s/step"
    assert [cell["actor"] for cell in cells] == ["driver", "rollout-0", "rollout-1"]
    assert [cell["state"] for cell in cells] == ["waits for rollout", "stream", "silent (was: idle)"]
    assert (cells[0]["queue"], cells[1]["queue"]) == ("3", "-")
    assert cells[2]["seen"] == "42 s"
    assert cells[1]["rate"].endswith("tokens/s")
    assert all(float(cell["GiB"]) >= 0 for cell in cells)


def test_actors_of_a_run_that_ended_have_ended(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heartbeat = Heartbeat()
    heartbeat.start(run, "rollout-0", "first")
    heartbeat.stop("idle")
    long_ago = {**heartbeat.snapshot(), "time": time.time() - 7_300, "since": time.time() - 7_300}
    for actor, state in (("driver", "failed"), ("rollout", "idle")):
        values = {**long_ago, "actor": actor, "kind": actor, "state": state}
        (run / "actors" / f"{actor}.json").write_text(json.dumps(values))
    (run / "actors" / "rollout-0.json").unlink()
    head, cells = cells_of(top(run, capsys))
    assert head == "first  step 0/50  failed"
    assert [(cell["actor"], cell["state"], cell["seen"]) for cell in cells] == [
        ("driver", "failed", "2 h"),
        ("rollout", "ended", "2 h"),
    ]


def test_run_without_heartbeats(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top(run, capsys) == ["first  step 0/50", "No actor has written a heartbeat yet."]


def test_folder_without_a_run_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", str(tmp_path), "--once"]) == 1
    error = capsys.readouterr().err.strip()
    assert error == f"geovlm-ray top: {tmp_path}: expected a run directory with a config.yaml, found none"
