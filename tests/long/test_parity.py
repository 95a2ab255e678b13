"""Log-probs of engine and learner match for every token after each weight sync."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from geovlm_ray.model.loading import model_folder
from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow
LARGE_STEPS = ("learner.lr=1.0e-3", "learner.warmup_steps=0", "loop.max_staleness=0")


def check_parity(run: Path) -> None:
    rows = metrics(run)
    assert len(rows) == 5
    assert all(row["parity/max_abs"] <= 1e-3 for row in rows)
    assert json.loads((run / "summary.json").read_text())["parity_max_abs"] <= 1e-3


def test_full_weight_sync_keeps_parity_and_the_checkpoint_loads_as_a_model(tmp_path: Path) -> None:
    run = train(tmp_path, "full", 5, "--local", *LARGE_STEPS)
    check_parity(run)
    checkpoint = run / "checkpoints" / "step-000005"
    trained = load_file(checkpoint / "model.safetensors")
    base = load_file(model_folder("tiny-start") / "model.safetensors")
    max_change = max(float((trained[name] - base[name].float()).abs().max()) for name in base)
    assert max_change > 1e-3
    reloaded = train(tmp_path, "reloaded", 1, "--local", f"model.path={checkpoint}")
    assert metrics(reloaded)[0]["parity/max_abs"] <= 1e-3


def test_adapter_is_synced_as_an_adapter(tmp_path: Path) -> None:
    run = train(tmp_path, "lora", 5, "--local", *LARGE_STEPS, "model.lora={rank: 8}", "learner.kl_beta=0.01")
    check_parity(run)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(model_folder("tiny-start"), dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(run / "checkpoints" / "step-000005"))
    assert any(float(p.abs().max()) > 1e-4 for name, p in adapted.named_parameters() if "lora_B" in name)


def test_adapter_unsupported_by_vllm_is_synced_merged(tmp_path: Path) -> None:
    check_parity(train(tmp_path, "merged", 5, "--local", *LARGE_STEPS, "model.lora={rank: 8, targets: all}"))


@pytest.mark.parametrize("resolution", ["native", "tiles"])
def test_parity_holds_for_images_of_any_shape(resolution: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k, (width, height) in enumerate([(301, 199), (90, 270), (113, 112), (640, 500)]):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(tmp_path / f"{k}.png")
    tifffile.imwrite(tmp_path / "4.tif", rng.integers(0, 4000, (150, 230), np.uint16))
    images = [["0.png"], ["1.png"], ["2.png", "0.png"], ["3.png"], ["4.tif"], ["4.tif", "1.png", "3.png"]]
    records = [
        {"id": str(k), "task": "vqa", "images": names, "prompt": "Is there a ship?", "reference": "yes"}
        for k, names in enumerate(images)
    ]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = ("data.source=samples", f"data.path={tmp_path / 'records.jsonl'}", "data.stages=[]")
    sizes = ("rollout.max_model_len=1024", "prompt.image_size=84", f"prompt.resolution={resolution}")
    check_parity(train(tmp_path, resolution, 5, "--local", *LARGE_STEPS, *data, *sizes, "sync.parity_prompts=6"))
