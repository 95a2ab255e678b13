"""A run whose dataset has records that cannot be shown: the run replaces, lists and counts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.runs import PROMPTS, check_samples, metrics, samples, train
from tests.unit.datasets import example, write_dataset, write_image

pytestmark = pytest.mark.slow
RECORDS = 24
STEPS = RECORDS // PROMPTS
BROKEN = (5, 17, RECORDS + 2)
"""Two training records and a held-out one."""


def broken_dataset(folder: Path) -> Path:
    """Records with an image each, some of them no pictures."""
    names = [f"{k}.png" for k in range(RECORDS + 4)]
    for k, name in enumerate(names):
        write_image(folder / "images" / name, k)
        if k in BROKEN:
            (folder / "images" / name).write_text("no picture")
    splits = ["train"] * RECORDS + ["test"] * 4
    records = [example(k, (name,), split=split) for k, (name, split) in enumerate(zip(names, splits, strict=True))]
    return write_dataset(folder / "data", records, root=str(folder / "images"))


def test_run_replaces_lists_and_counts_bad_records(tmp_path: Path) -> None:
    data = (
        f"data.path={broken_dataset(tmp_path)}",
        "data.source=parquet",
        "data.stages=[]",
        "evaluation.num_examples=4",
    )
    limits = ("data.check_images=0", "data.max_bad=0.2", "rollout.max_model_len=2048")
    run = train(tmp_path, "broken", STEPS, "--local", *data, *limits)
    check_samples(run, STEPS)
    listed = [json.loads(line) for line in (run / "bad_records.jsonl").read_text().splitlines()]
    assert {row["id"]: row["step"] > 0 for row in listed} == {"r26": False, "r5": True, "r17": True}
    assert all("expected a decodable image" in row["reason"] for row in listed)
    assert all(row["origin"] == f"part-00000.parquet, row {row['id'][1:]}" for row in listed)
    assert sum(row["groups/bad"] for row in metrics(run)) >= 2
    used = set(samples(run)["example_id"].to_pylist())
    assert used == {f"r{k}" for k in range(RECORDS) if k not in BROKEN}
    assert json.loads((run / "summary.json").read_text())["bad_records"] == 3
    for when in ("before", "after"):
        rows = [json.loads(line) for line in (run / f"heldout_{when}.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == ["r24", "r25", "r27"] * 2
    assert (run / "report.html").is_file()
