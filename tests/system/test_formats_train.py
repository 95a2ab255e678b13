"""A small source of every format, from its files to two steps of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.training.sft import fine_tune
from tests.unit.conversion import write_scene
from tests.unit.format_sources import SOURCES

pytestmark = [pytest.mark.slow, pytest.mark.long]
WITHOUT_ANSWERS = ("geochat bench", "earthdial-results")
"""Sources that hold questions or results only."""


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in WITHOUT_ANSWERS])
def test_a_source_is_converted_previewed_and_trained_on(name: str, tmp_path: Path) -> None:
    form, write_source = SOURCES[name]
    source, out = write_source(tmp_path / "source"), tmp_path / "data"
    assert main(["data", "convert", form, str(source), str(out)]) == 0
    (dataset,) = open_datasets(out)
    examples = [row.example for _, _, row in dataset.rows()]
    for image in {image for example in examples for image in example.images}:
        if not (dataset.root / image).exists():
            write_scene(dataset.root / image)
    assert main(["data", "preview", str(out), "--out", str(tmp_path / "page.html")]) == 0
    splits = json.dumps(sorted({example.split for example in examples}))
    data = ["data.source=parquet", f"data.path={out}", "data.stages=[]", f"data.splits={splits}"]
    settings = ["sft.steps=2", "sft.batch_size=2", "sft.warmup_steps=1", "sft.eval_examples=0", "sft.log_every=1"]
    fine_tune(load_config("demo", [*data, *settings]), tmp_path / "model", Console(quiet=True))
    rows = [json.loads(line) for line in (tmp_path / "model" / "sft.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
