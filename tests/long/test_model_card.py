"""The vLLM code of a model card answers like the adapter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from tests.system.exports import command, train_adapter
from tests.system.runs import COMMAND
from tests.unit.test_export import blocks

pytestmark = pytest.mark.slow


def test_vllm_code_of_the_model_card_answers_like_the_adapter(tmp_path: Path) -> None:
    trained = train_adapter(tmp_path)
    folder = tmp_path
    command(COMMAND, "export", str(trained), "shared", cwd=folder)
    render_scene(scene_example("vqa", 1_000_000_011, 0).images[0]).save(folder / "scene.png")
    prompt, _, vllm = blocks(folder / "shared" / "README.md")
    code = f"if __name__ == '__main__':\n    {(prompt + chr(10) + vllm).strip().replace(chr(10), chr(10) + '    ')}\n"
    printed = command(sys.executable, "-c", code, cwd=folder)
    answer = Answerer(resolve_model(str(trained))).answer([str(folder / "scene.png")], "how many ships are there ?")
    assert printed.strip().splitlines()[-1] == answer.response
