"""The vLLM code of a model card answers like the adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from tests.system.adapter import train_adapter
from tests.system.runs import environment
from tests.system.test_export import blocks

pytestmark = pytest.mark.slow


def test_vllm_code_of_the_model_card_answers_like_the_adapter(tmp_path: Path) -> None:
    trained = train_adapter(tmp_path)
    # The card's code names the exported folder relative to the working directory.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["export", str(trained), "shared"]) == 0
    render_scene(scene_example("vqa", 1_000_000_011, 0).images[0]).save(tmp_path / "scene.png")
    prompt, _, vllm = blocks(tmp_path / "shared" / "README.md")
    code = f"if __name__ == '__main__':\n    {(prompt + chr(10) + vllm).strip().replace(chr(10), chr(10) + '    ')}\n"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    answer = Answerer(resolve_model(str(trained))).answer([str(tmp_path / "scene.png")], "how many ships are there ?")
    assert result.stdout.strip().splitlines()[-1] == answer.response
