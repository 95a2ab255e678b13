"""Evaluation of the tiny policy with a vLLM engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from geovlm_ray.cli import main

pytestmark = pytest.mark.slow


def test_broken_image_or_overlong_prompt_fails_only_its_benchmark(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_text("junk")
    good = {"id": "good", "task": "vqa", "images": ["a.png"], "prompt": "Is there a ship?", "reference": "no"}
    bad = {"broken": {"images": ["broken.png"]}, "long": {"prompt": "look closely " * 4000}}
    for name, change in bad.items():
        lines = (good, good | change | {"id": name})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmarks = [str(tmp_path / f"{name}.jsonl") for name in bad]
    out = str(tmp_path / "out")
    assert (
        main(["evaluate", "tiny", "--out", out, "--benchmarks", *benchmarks, "drawn-vqa", "--limit", "4", "--local"])
        == 0
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmarks"]["drawn-vqa"]["n"] == 4
    assert "broken.png: expected a decodable image" in results["absent"]["broken-vqa"]
    assert "record 'long' (part-00000.parquet, row 1): expected a prompt that fits" in results["absent"]["long-vqa"]
