"""Every command of the README and of docs/commands.md runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geovlm_ray.cli import main
from tests.docs import TOP, environment, readme_commands, run
from tests.unit.conversion import dialogue, write_json
from tests.unit.oracle import write_scene

pytestmark = pytest.mark.slow
SKIPPED = {
    "train geovlm-r1": "needs five GPUs",
    "sft geovlm-r1": "needs a GPU",
    "study format": "takes long; tests/long/test_studies.py runs its short form",
    "web": "runs until it is stopped; tests/system/test_web_page.py tests it",
}
"""README commands that are not run, by prefix, with the reason."""
ON_A_GPU = ["train", "debug-gpu"]
"""A command that is not run without a GPU; with data, the recipe is replaced by `demo`."""
SUBSTITUTIONS = {
    "runs/NAME": "runs/demo",
    "runs/first": "runs/demo",
    "debug-gpu": "demo",
    "downloads/DIOR": "GeoChat_Instruct.json",
    "MODEL": "runs/demo",
    "ROOT": "datasets",
    "OUT": "exported",
    "FILE": "answers.jsonl",
    "FILE.jsonl": "answers.jsonl",
    "RUN_OR_JSON": str(TOP / "benchmarks" / "results" / "throughput.json"),
    "/datasets/geochat/images": "images",
}
"""Values of the README's placeholders."""
SHORT = ("run.steps=2", "rollout.prompts_per_step=4", "rollout.group_size=2", "evaluation.num_examples=0", "--local")
EXTRA_ARGUMENTS = {
    "train": SHORT,
    "sft": ("sft.steps=1", "sft.batch_size=2", "sft.eval_examples=0", "sft.readers=0"),
    "top": ("--once",),
    "predict": ("--local",),
    "evaluate runs/": ("--limit=2", "--local"),
    "evaluate runs/demo --benchmarks drawn": ("--out=evaluations/drawn",),
    "evaluate runs/demo --benchmarks mine": ("--out=evaluations/mine",),
}
"""Extra arguments by command prefix that make commands short and separate their output folders."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file for each path that the README's commands use."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "images").mkdir()
    (folder / "datasets" / "aid" / "beach").mkdir(parents=True)
    write_scene(folder / "scene.tif", 224, 112)
    for path in ("image.png", "images/a.png", "datasets/aid/beach/a.png"):
        Image.effect_noise((96, 96), 60).convert("RGB").save(folder / path)
    turns = dialogue("<image>\nIs there a ship? Answer with a single word.", "yes")
    conversation = {"image": "a.png", "conversations": turns}
    write_json(folder / "GeoChat_Instruct.json", [{"id": "a", **conversation}])
    write_json(folder / "earthdial.json", [{"id": "a", **conversation, "image": "images/a.png"}])
    run("sh", "geovlm-ray data convert earthdial earthdial.json data/earthdial", folder)
    question: dict[str, Any] = {"id": "a", "task": "vqa", "images": ["image.png"], "prompt": "is there a ship ?"}
    write_json(folder / "mine.jsonl", [{**question, "id": name, "reference": "yes"} for name in "ab"])
    record = {"id": "a", "task": "vqa", "response": "<think>I look.</think><answer>yes</answer>", "target": "yes"}
    write_json(folder / "answers.jsonl", [record])
    box = "[[10, 10, 30, 30]]"
    write_json(folder / "earthdial.jsonl", [{"answer": box, "gt_bbox": box, "size_group": "small"}])
    return folder


def runnable(words: list[str]) -> list[str]:
    """A README command with its placeholders replaced and extra arguments appended."""
    arguments = [SUBSTITUTIONS.get(word, word) for word in words]
    if "earthdial" in words and "--predictions" in words:
        arguments = ["earthdial.jsonl" if word == "answers.jsonl" else word for word in arguments]
    return [
        *arguments,
        *(
            word
            for prefix, extra in EXTRA_ARGUMENTS.items()
            if shlex.join(arguments).startswith(prefix)
            for word in extra
        ),
    ]


def test_readme_commands_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs all commands in order, since later ones use the output of earlier ones."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in readme_commands():
        if words != ON_A_GPU and not shlex.join(words).startswith(tuple(SKIPPED)):
            assert main(runnable(words)) == 0, words
    assert {path.name for path in (workspace / "runs").iterdir()} == {"demo", "second", "mine", "own"}
    assert not [prefix for prefix in SKIPPED if not any(shlex.join(w).startswith(prefix) for w in readme_commands())]


PRINT_HELP = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        print(name, "ended with", end.code)
"""


def test_readme_benchmarks_print_help() -> None:
    """Runs in one process because all benchmarks import the same modules."""
    names = sorted(set(re.findall(r"-m (benchmarks\.\w+)", (TOP / "docs" / "benchmarks.md").read_text())))
    command = [sys.executable, "-c", PRINT_HELP, *names]
    result = subprocess.run(command, cwd=TOP, env=environment(), capture_output=True, text=True, check=False)
    helps = re.findall(r"^usage: .*?(?=^usage: |\Z)", result.stdout, re.M | re.S)
    modules = [re.findall(r"^(\S+) ended with 0$", text, re.M) for text in helps if "--json" in text]
    assert modules == [[name] for name in names], result.stderr
