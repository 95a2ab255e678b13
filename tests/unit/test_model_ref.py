"""Resolution of model references to weights and prompt settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import ConfigError, ModelError, RunError
from geovlm_ray.model.loading import model_folder
from geovlm_ray.serving.export.sources import provenance_of
from geovlm_ray.serving.model_ref import ModelRef, resolve_model
from geovlm_ray.training.checkpoint import CheckpointFolder

TINY = model_folder("tiny")


class CopySaver:
    """Saver that writes a full model or an adapter."""

    def __init__(self, adapter: bool = False) -> None:
        self.adapter = adapter

    def save(self, folder: Path) -> None:
        if self.adapter:
            write_adapter(folder)
        else:
            shutil.copytree(TINY, folder, dirs_exist_ok=True)

    def saved(self) -> bool:
        return True


def write_adapter(folder: Path, base: str = str(TINY)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def write_run(folder: Path, steps: tuple[int, ...], settings: str = "config.yaml", adapter: bool = False) -> Path:
    """A run directory with checkpoints; its image size differs from that of every recipe."""
    checkpoints = CheckpointFolder(folder / "checkpoints", keep=9)
    for step in steps:
        checkpoints.save(step, CopySaver(adapter), {})
        checkpoints.finish()
    folder.mkdir(exist_ok=True)
    (folder / settings).write_text(to_yaml(load_config("demo", ["prompt.image_size=84"])))
    return folder


def image_size(ref: ModelRef) -> int:
    return ref.config.prompt.image_size


def test_tiny_models_default_to_the_demo_recipe_and_others_to_that_of_the_paper(tmp_path: Path) -> None:
    found = resolve_model("tiny")
    assert (found.path, found.adapter, found.run, found.trained) == (TINY, False, None, None)
    assert found.config == load_config("demo")
    like = shutil.copytree(TINY, tmp_path / "like")
    assert resolve_model(str(like)).config == load_config("demo")
    assert resolve_model(str(write_adapter(tmp_path / "adapter"))).config == load_config("demo")
    config = json.loads((like / "config.json").read_text())
    config["text_config"]["vocab_size"] = 151_936
    (like / "config.json").write_text(json.dumps(config))
    assert resolve_model(str(like)).config == load_config("geovlm-r1")
    assert resolve_model(
        str(write_adapter(tmp_path / "adapter", "Qwen/Qwen2.5-VL-3B-Instruct"))
    ).config.prompt.instructions


@pytest.mark.parametrize("adapter", [False, True])
def test_run_resolves_to_its_newest_intact_checkpoint(adapter: bool, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (2, 10, 4), adapter=adapter)
    partial = folder / "checkpoints" / ".partial-of-another-process"
    partial.mkdir()
    found = resolve_model(str(folder))
    assert found.path == folder / "checkpoints" / "step-000010"
    assert (found.adapter, found.run, image_size(found)) == (adapter, folder, 84)
    assert partial.is_dir(), "another process may still be writing it"
    weights = "adapter_model.safetensors" if adapter else "model.safetensors"
    (found.path / weights).write_bytes(b"broken")
    assert resolve_model(str(folder)).path.name == "step-000004"
    for step in (2, 4):
        (folder / "checkpoints" / f"step-{step:06d}" / weights).unlink()
    with pytest.raises(
        RunError, match=r"expected an intact checkpoint in .*run/checkpoints, found checkpoint .*step-00"
    ):
        resolve_model(str(folder))


def test_checkpoint_resolves_to_itself_and_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", (2, 4))
    found = resolve_model(str(folder / "checkpoints" / "step-000002"))
    assert (found.path.name, found.run, image_size(found)) == ("step-000002", folder, 84)
    monkeypatch.chdir(folder / "checkpoints" / "step-000002")
    assert (resolve_model(".").run, image_size(resolve_model("."))) == (folder, 84)


def test_run_without_checkpoints_is_named_in_the_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ())
    with pytest.raises(RunError, match=r"run: expected an intact checkpoint in .*run/checkpoints, found none"):
        resolve_model(str(folder))


def test_fine_tuned_model_adapter_and_checkpoints_use_the_settings_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", (5,), "sft.yaml")
    assert resolve_model(str(folder)).path.name == "step-000005", "training has not finished"
    assert (resolve_model(str(folder / "checkpoints" / "step-000005")).run) == folder
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    finished = resolve_model(str(folder))
    assert (finished.path, finished.adapter, finished.run, image_size(finished)) == (folder, False, folder, 84)
    adapter = resolve_model(str(write_adapter(folder / "adapter")))
    assert (adapter.adapter, adapter.run, image_size(adapter)) == (True, folder, 84)


def test_recipe_and_overrides_take_precedence_over_settings_of_the_model(tmp_path: Path) -> None:
    model = shutil.copytree(TINY, tmp_path / "model")
    (model / "geovlm_ray.yaml").write_text("prompt: {image_size: 56}\n")
    (model / "config.yaml").write_text("of: another tool\n")
    found = resolve_model(str(model))
    assert (image_size(found), found.run) == (56, None)
    assert image_size(resolve_model(str(model), "demo")) == 112
    assert image_size(resolve_model(str(model), "demo", ["prompt.image_size=28"])) == 28
    trained = write_run(tmp_path / "run", (1,))
    replaced = resolve_model(str(trained), "geovlm-r1")
    assert image_size(replaced) == 448
    assert replaced.trained
    assert replaced.trained.prompt.image_size == 84, "the recipe does not change the training settings"


PLUGIN = """
from pathlib import Path
from geovlm_ray.learner.objectives import OBJECTIVES

Path("imported").touch()
OBJECTIVES["mine"] = OBJECTIVES["grpo"]
"""
CODE = "plugins: [FOLDER/mine.py]\ntasks: {counts: {target: vqa, instruction: Count., reward: FOLDER/mine.py:count}}\n"


def copy_tiny(folder: Path) -> Path:
    return Path(shutil.copytree(TINY, folder))


@pytest.mark.parametrize("write", [copy_tiny, write_adapter])
@pytest.mark.parametrize("settings", ["sft.yaml", "config.yaml", "geovlm_ray.yaml"])
def test_code_that_a_folder_names_is_not_run(
    write: Callable[[Path], Path], settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    folder = write(Path("model"))
    (folder / "mine.py").write_text(PLUGIN)
    (folder / settings).write_text(CODE.replace("FOLDER", "model"))
    if settings == "config.yaml":
        assert resolve_model("model").run is None, "`train` writes no config.yaml beside weights"
    else:
        with pytest.raises(ConfigError, match=rf"{settings}: expected settings without plugins and tasks .* counts;"):
            resolve_model("model")
    (folder / settings).write_text("prompt: {system: '${SECRET_TOKEN}'}\n")
    found = resolve_model("model")
    assert found.config.prompt.system != "hidden"
    assert found.trained is None or found.trained.prompt.system == "${SECRET_TOKEN}"
    assert not Path("imported").exists()


def test_code_that_a_base_model_names_is_not_run_by_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, run = copy_tiny(Path("base")), write_run(Path("run"), (2,))
    (base / "mine.py").write_text(PLUGIN)
    (base / "sft.yaml").write_text(CODE.replace("FOLDER", "base") + "sft: {steps: 3}\nmodel: {path: tiny}\n")
    (run / "config.yaml").write_text(to_yaml(load_config("demo", ["model.path=base"])))
    found = provenance_of(resolve_model("run"), "run")
    assert found.sft
    assert (found.sft.sft.steps, found.base) == (3, "tiny")
    assert not Path("imported").exists()


def test_run_with_plugins_and_tasks_asks_for_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("run"), (2,))
    Path("mine.py").write_text(PLUGIN + "\ndef count(response, target): return 1.0\n")
    stages = "data: {stages: [{tasks: [counts], steps: 1}]}\nlearner: {objective: mine}\nprompt: {image_size: 84}\n"
    (run / "config.yaml").write_text(CODE.replace("FOLDER/", "") + stages)
    for model in ("run", "run/checkpoints/step-000002"):
        with pytest.raises(ConfigError, match=r"found mine\.py, counts; pass --recipe \S*run/config.yaml to use them"):
            resolve_model(model)
    assert not Path("imported").exists()
    found = resolve_model("run", "run/config.yaml", ["rollout.max_tokens=20"])
    assert (found.trained, found.run) == (load_config("run/config.yaml"), Path("run"))
    assert (found.config.learner.objective, found.config.rollout.max_tokens) == ("mine", 20)
    assert list(found.config.tasks) == ["counts"]
    assert found.config.plugins == ("mine.py",)
    other = "tasks: {counts: {target: boxes, instruction: Find., reward: mine.py:count}}\n"
    (run / "config.yaml").write_text("plugins: [mine.py]\n" + other)
    with pytest.raises(ConfigError, match="found counts; pass"):
        resolve_model("run")


def test_missing_or_invalid_model_is_named_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="'absent/model': expected a local folder or a Hugging Face model, found"):
        resolve_model("absent/model")
    with pytest.raises(ModelError, match=r"expected a config.json in the folder, found none"):
        resolve_model(str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        resolve_model("tiny", "demmo")
    with pytest.raises(ConfigError, match=r"unknown key 'prompt.size'"):
        resolve_model("tiny", None, ["prompt.size=3"])
