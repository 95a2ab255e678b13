"""A trained adapter, exported: transformers and vLLM load the folder as it is, and it answers as the adapter did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.training.local import make_engine
from tests.system.runs import COMMAND, environment, train
from tests.unit.test_export import blocks

pytestmark = pytest.mark.slow

TASKS = ("vqa", "object_detection", "visual_grounding", "multilabel_classification")
EACH = 3


def command(*arguments: str, cwd: Path) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(
        arguments, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose adapter has learnt enough to answer otherwise than the tiny policy."""
    runs = tmp_path_factory.mktemp("runs")
    return train(runs, "lora", 4, "--local", "model.lora={rank: 8}", "learner.lr=1.0e-2", "learner.warmup_steps=0")


def test_the_exported_model_answers_as_the_adapter_in_transformers_and_in_vllm(trained: Path) -> None:
    folder = trained.parent
    said = command(COMMAND, "export", str(trained), "model", cwd=folder)
    assert "Log-probs of a drawn prompt differ by at most" in said
    examples = [scene_example(task, 1_000_000_011, k) for task in TASKS for k in range(EACH)]
    asked = [(example.images, example.question, example.task) for example in examples]
    adapter = resolve_model(str(trained))
    assert adapter.adapter
    expected = [Answerer(adapter).answer(*ask).response for ask in asked]
    untrained = Answerer(resolve_model("tiny"))
    assert [untrained.answer(*ask).response for ask in asked] != expected
    exported = resolve_model(str(folder / "model"))
    assert not exported.adapter
    assert [Answerer(exported).answer(*ask).response for ask in asked] == expected
    engine = make_engine(load_config(str(folder / "model" / "geovlm_ray.yaml")), exported.path)
    groups = engine.generate([Prompt(k, example) for k, example in enumerate(examples)], greedy=True)
    assert [group.samples[0].text for group in groups] == expected


def test_the_cards_lines_for_vllm_answer_as_the_adapter_does(trained: Path) -> None:
    folder = trained.parent
    command(COMMAND, "export", str(trained), "shared", cwd=folder)
    render_scene(scene_example("vqa", 1_000_000_011, 0).images[0]).save(folder / "scene.png")
    prompt, _, vllm = blocks(folder / "shared" / "README.md")
    code = f"if __name__ == '__main__':\n    {(prompt + chr(10) + vllm).strip().replace(chr(10), chr(10) + '    ')}\n"
    printed = command(sys.executable, "-c", code, cwd=folder)
    answer = Answerer(resolve_model(str(trained))).answer([str(folder / "scene.png")], "how many ships are there ?")
    assert printed.strip().splitlines()[-1] == answer.response
