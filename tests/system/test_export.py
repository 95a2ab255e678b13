"""An exported model equals its policy, and its model card describes the run, the data and the usage."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from geovlm_ray.config import Config, load_config, to_yaml
from geovlm_ray.core.errors import DataError, ModelError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.data.table import Row, to_table
from geovlm_ray.evaluation.metrics.bootstrap import Interval
from geovlm_ray.evaluation.results import Result, Results, write_results
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, load_processor, model_folder, save_adapter
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.export import write
from geovlm_ray.serving.export.merge import merged_model
from geovlm_ray.serving.export.write import export
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.training.checkpoint import CheckpointFolder
from tests.unit.datasets import example, write_dataset, write_image

pytestmark = pytest.mark.slow

TINY = model_folder("tiny")
LORA = ModelConfig(path="tiny", lora=LoraSettings(rank=4, alpha=8))
STEP = 7
SYSTEM = 'Think ``` first.\n```\nThen "answer".'


class Adapter:
    """A random LoRA adapter that changes the answers of the tiny policy."""

    def __init__(self, seed: int = 0) -> None:
        self.model: Any = load_model(LORA, TINY, torch.device("cpu"), seed)
        torch.manual_seed(seed)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3)

    def save(self, folder: Path) -> None:
        save_adapter(self.model, load_processor(TINY), folder, self.model.state_dict())

    def saved(self) -> bool:
        return True


def write_run(folder: Path, *overrides: str, steps: int = STEP) -> Path:
    """Write a run directory of `train` with an adapter, as far as the model card reads it."""
    config = load_config("demo", ["model.lora={rank: 4, alpha: 8}", f"run.steps={steps}", *overrides])
    checkpoints = CheckpointFolder(folder / "checkpoints", keep=1)
    checkpoints.save(STEP, Adapter(), {})
    checkpoints.finish()
    write_atomically(folder / "config.yaml", to_yaml(config))
    rows = [{"step": k, "reward/mean": k / 10, "task/vqa/reward": k / 10} for k in range(1, steps + 1)]
    write_atomically(folder / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    pair = {"before": {"mean": 1.25, "se": 0.0625, "n": 40}, "after": {"mean": 1.5, "se": 0.05, "n": 40}}
    pair["change"] = {"mean": 0.25, "se": 0.03, "n": 40}
    both = {"sampled": pair, "greedy": pair}
    constant = {task: {"answer": "yes", "mean": 1.125, "se": 0.0, "n": 40} for task in ("all", "vqa")}
    summary = {"steps": steps, "heldout": {**both, "per_task": {"vqa": both}, "constant": constant}}
    write_atomically(folder / "summary.json", json.dumps(summary))
    return folder


def write_evaluation(folder: Path, name: str = "drawn-vqa") -> Path:
    folder.mkdir(parents=True)
    interval = Interval(0.625, 0.5, 0.75)
    result = Result("Drawn", "vqa", 40, {"accuracy": 0.6}, {"accuracy": interval}, interval, {}, {}, {})
    write_results(Results("a | model", {name: result}), folder)
    return folder


def write_scene(path: Path, task: str = "vqa") -> Path:
    render_scene(scene_example(task, 1_000_000_007, 0).images[0]).save(path)
    return path


def blocks(card: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card.read_text(), re.M | re.S)


def printed(code: str) -> str:
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink):
        exec(code, {})
    return sink.getvalue().strip()


def test_merged_adapter_keeps_the_log_probs_and_loads_in_transformers(tmp_path: Path) -> None:
    ref = resolve_model(str(write_run(tmp_path / "run")))
    assert ref.adapter
    assert export(ref, "run", tmp_path / "out", "float32") < 1e-3
    assert not list(tmp_path.glob(".*"))
    merged, base = load_file(tmp_path / "out" / "model.safetensors"), load_file(TINY / "model.safetensors")
    assert max(float((merged[name] - base[name].float()).abs().max()) for name in base) > 1e-2
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert load_processor(tmp_path / "out").tokenizer.get_vocab() == load_processor(TINY).tokenizer.get_vocab()
    write_scene(tmp_path / "scene.png")
    request = [str(tmp_path / "scene.png")], "how many planes are there ?"
    tuned, plain = Answerer(ref).answer(*request), Answerer(resolve_model("tiny")).answer(*request)
    assert tuned.response != plain.response
    exported = resolve_model(str(tmp_path / "out"))
    assert exported.config.prompt == ref.config.prompt
    assert Answerer(exported).answer(*request).response == tuned.response


def test_bf16_export_differs_only_by_rounding(tmp_path: Path) -> None:
    ref = resolve_model(str(write_run(tmp_path / "run")))
    assert 1e-5 < export(ref, "run", tmp_path / "out", "bfloat16") < 0.5
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert resolve_model(str(tmp_path / "out")).config.model.dtype == "bfloat16"


def test_model_card_describes_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "learner.kl_beta=0.04")
    write_evaluation(folder / "evaluations" / f"step-{STEP:06d}")
    ref = resolve_model(str(folder), None, [f"prompt.system={json.dumps(SYSTEM)}"])
    export(ref, "run", tmp_path / "out", "float32", [write_evaluation(tmp_path / "other", "another")])
    card = ModelCard.load(tmp_path / "out" / "README.md")
    head = card.data.to_dict()
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "image-text-to-text")
    text = card.text
    for line in (
        "| steps | 7 of 7 |",
        "| completions per prompt (G) | 8 |",
        "| KL coefficient (reference policy) | 0.04 |",
        "| trained weights | LoRA, rank 4, alpha 8, language layers |",
        "| vqa | equivalence |",
        "| all | greedy | 40 | 1.125 | – | 1.250 ± 0.062 | 1.500 ± 0.050 | +0.250 \\[+0.191, +0.309\\] |",
        "| drawn-vqa | 40 | score | mean | 62.50 | 50.0 to 75.0 |",
        "| another | 40 | score |",
        "Benchmark results of a \\| model",
        "Trained on synthetic scenes only",
        "Tasks: vqa.",
    ):
        assert line in text
    assert (tmp_path / "out" / "reward.svg").read_text().startswith("<svg")
    assert "(reward.svg)" in text
    namespace: dict[str, Any] = {}
    code = blocks(tmp_path / "out" / "README.md")[0].replace(
        '"scene.png"', repr(str(write_scene(tmp_path / "scene.png")))
    )
    exec(code, namespace)
    assert namespace["messages"][0]["content"][0]["text"] == SYSTEM


def test_model_card_omits_scores_of_other_steps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=STEP + 3)
    write_evaluation(folder / "evaluations" / f"step-{STEP + 3:06d}")
    export(resolve_model(str(folder)), "run", tmp_path / "out", "float32")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Not evaluated." in text
    assert f"| steps | {STEP} of {STEP + 3} |" in text


def test_model_card_without_a_run_omits_unknown_sections(tmp_path: Path) -> None:
    export(resolve_model("tiny"), "tiny", tmp_path / "out", "float32")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "the policy `tiny` of geovlm_ray" in text
    for unknown in ("## Method", "## Data", "## Rewards", "reward.svg"):
        assert unknown not in text


def test_model_card_lists_the_training_records_and_licences(tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "a.png", 0)
    data = write_dataset(tmp_path / "data", [example(k, ("a.png",)) for k in range(3)])
    rows = [Row(example(k, ("a.png",)), "source.jsonl", k, "CC | BY 4.0" if k else "") for k in range(3)]
    other = replace(rows[0].example, split="test")
    pq.write_table(to_table([*rows, replace(rows[0], example=other)]), data / "part-00000.parquet")
    folder = write_run(
        tmp_path / "run", "data.source=parquet", f"data.path={data}", "data.stages=[]", "data.mixture=natural"
    )
    export(resolve_model(str(folder)), "run", tmp_path / "out", "float32")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| harbours | vqa | 1 | not stated |" in text
    assert "| harbours | vqa | 2 | CC \\| BY 4.0 |" in text
    assert "`data`, converted to Parquet, splits train." in text
    assert str(tmp_path) not in text, "a published card must not contain local paths"
    shutil.rmtree(data)
    export(resolve_model(str(folder)), "run", tmp_path / "out", "float32")
    assert "licences of its records are unknown" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("resolution", ["fixed", "native", "tiles"])
def test_model_card_code_reproduces_the_answer_of_the_policy(
    resolution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(
        tmp_path / "run", f"prompt.resolution={resolution}", "prompt.image_size=84", "prompt.system=Look."
    )
    ref = resolve_model(str(folder))
    export(ref, "run", tmp_path / "out", "float32")
    monkeypatch.chdir(tmp_path)
    write_scene(Path("scene.png"))
    prompt, transformers, *_ = blocks(Path("out/README.md"))
    expected = Answerer(ref).answer(["scene.png"], "how many ships are there ?")
    assert printed(f"{prompt}\n{transformers}") == expected.response.strip()


def test_only_an_export_of_the_same_model_is_overwritten(tmp_path: Path) -> None:
    out, ref = tmp_path / "out", resolve_model(str(write_run(tmp_path / "run")))
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    message = "out: expected no such folder, an empty one, or an export of the same model, found other content"
    with pytest.raises(ModelError, match=message):
        export(ref, "run", out, "float32")
    (out / "notes.txt").unlink()
    export(ref, "run", out, "float32")
    (out / "README.md").unlink()
    export(ref, "run", out, "float32")
    assert (out / "README.md").is_file()
    with pytest.raises(ModelError, match=message):
        export(ref, "run", out, "bfloat16")
    with pytest.raises(ModelError, match=message):
        export(resolve_model("tiny"), "tiny", out, "float32")


def test_weights_that_differ_from_the_policy_are_rejected(tmp_path: Path) -> None:
    ref = resolve_model(str(write_run(tmp_path / "run")))
    export(ref, "run", tmp_path / "out", "float32")
    shutil.copy(TINY / "model.safetensors", tmp_path / "out" / "model.safetensors")
    with pytest.raises(ModelError, match=r"expected log-probs within 0.001 of those of .*, found a difference of"):
        export(ref, "run", tmp_path / "out", "float32")


def test_source_model_is_freed_before_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Any]] = []

    def load_in_a_cycle(*args: Any) -> Any:
        model: Any = load(*args)
        model.itself = [model]
        loaded.append(weakref.ref(model))
        return model

    def merge(*args: Any) -> None:
        assert [model() for model in loaded] == [None]
        write_merged(*args)

    load, write_merged = write.load_for_inference, write.write_merged
    monkeypatch.setattr(write, "load_for_inference", load_in_a_cycle)
    monkeypatch.setattr(write, "write_merged", merge)
    export(resolve_model("tiny"), "tiny", tmp_path / "out", "float32")
    assert len(loaded) == 2


def test_missing_base_model_of_an_adapter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    adapter = tmp_path / "adapter"
    Adapter().save(adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "absent/base"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"adapter .*: expected its base model, found: model 'absent/base': "):
        export(resolve_model(str(adapter), "demo"), "adapter", tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()


def test_folder_without_an_evaluation_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation .*absent: expected a results.json"):
        export(resolve_model("tiny"), "tiny", tmp_path / "out", "float32", [tmp_path / "absent"])
    (tmp_path / "results.json").write_text('{"model": "x", "benchmarks": {"b": {}}}')
    with pytest.raises(DataError, match=r"results.json: expected results of `geovlm-ray evaluate`, found an invalid"):
        export(resolve_model("tiny"), "tiny", tmp_path / "out", "float32", [tmp_path])


def test_adapter_is_merged_once(tmp_path: Path) -> None:
    adapters = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(adapters):
        Adapter(seed).save(folder)
    one, two = (resolve_model(str(folder)) for folder in adapters)
    merged = merged_model(one, tmp_path / "merged")
    written = (merged / "model.safetensors").stat().st_mtime_ns
    assert merged_model(one, tmp_path / "merged") == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ModelError, match="found other content"):
        merged_model(two, tmp_path / "merged")
    assert merged_model(two, tmp_path / "merged", replace=True) == merged
    with pytest.raises(ModelError, match="found other content"):
        merged_model(one, tmp_path / "merged")
    assert merged_model(resolve_model("tiny"), tmp_path / "unused") == TINY
    base = shutil.copytree(TINY, tmp_path / "base")
    settings = json.loads((adapters[0] / "adapter_config.json").read_text())
    (adapters[0] / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    merged = merged_model(resolve_model(str(adapters[0])), tmp_path / "of_a_folder")
    shutil.copy(model_folder("tiny-start") / "model.safetensors", base)
    with pytest.raises(ModelError, match=r"expected no such folder or the adapter .*one merged into .*base, found oth"):
        merged_model(resolve_model(str(adapters[0])), merged)
    config: Config = one.config
    assert config.model.dtype == "float32"
