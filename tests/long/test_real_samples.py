"""Training on real remote-sensing images: every record that has a reference."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from geovlm_ray.cli import main
from geovlm_ray.data.formats.samples import TASK_ALIASES
from tests.rs import RS, needs_rs
from tests.system.runs import metrics, train

pytestmark = [pytest.mark.slow, needs_rs]


def test_three_steps_train_on_all_records_with_a_reference(tmp_path: Path) -> None:
    lines = (RS / "samples.jsonl").read_text().splitlines()
    records = {r["id"]: r for r in map(json.loads, lines) if r["reference"] is not None}
    assert len(records) == 46
    assert main(["data", "convert", "samples", str(RS / "samples.jsonl"), str(tmp_path / "parquet")]) == 0
    assert main(["data", "validate", str(tmp_path / "parquet")]) == 0
    run = train(
        tmp_path,
        "real",
        3,
        "data.source=parquet",
        f"data.path={tmp_path / 'parquet'}",
        "data.mixture=natural",
        "data.stages=[]",
        "rollout.prompts_per_step=46",
        "rollout.group_size=2",
        "rollout.max_model_len=2048",
    )
    assert len(metrics(run)) == 3
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(run))
    for step in (1, 2, 3):
        rows = pq.read_table(run / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
        assert {row["example_id"] for row in rows} == set(records)
        for row in rows:
            task = records[row["example_id"]]["task"]
            assert row["task"] == TASK_ALIASES.get(task, task)
            assert len(row["images"]) == len(records[row["example_id"]]["images"])
    assert (run / "report.html").is_file()
