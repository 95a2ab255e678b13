"""The README, done as it says."""

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
from tests.docs import README, TOP, environment, readme_commands, run
from tests.unit.converting import talk, write_json

pytestmark = pytest.mark.slow
NOT_HERE = {
    "train geovlm-r1": "needs five GPUs",
    "train debug-gpu": "needs a GPU",
    "sft geovlm-r1": "needs a GPU",
    "study format": "takes long; tests/system/test_studies.py has a short form",
    "web": "runs until it is stopped; its tests are elsewhere",
}
"""Calls of the README that are not made, by how they begin."""
STANDS_FOR = {
    "runs/NAME": "runs/demo",
    "runs/first": "runs/demo",
    "MODEL": "runs/demo",
    "ROOT": "datasets",
    "OUT": "exported",
    "FILE": "answers.jsonl",
    "FILE.jsonl": "answers.jsonl",
    "RUN_DIR|BENCH": str(TOP / "benchmarks" / "results" / "throughput.json"),
    "/datasets/geochat/images": "images",
}
"""What is there in place of the README's words."""
SHORT = ("run.steps=2", "rollout.prompts_per_step=4", "rollout.group_size=2", "evaluation.num_examples=0", "--local")
MORE = {
    "train": SHORT,
    "sft": ("sft.steps=1", "sft.batch_size=2", "sft.eval_examples=0"),
    "top": ("--once",),
    "evaluate runs/": ("--limit=2", "--local"),
    "evaluate runs/demo --benchmarks drawn": ("--out=evaluations/drawn",),
    "evaluate runs/demo --benchmarks mine": ("--out=evaluations/mine",),
}
"""What calls get besides, by how they begin, so that they are short and have a folder of their own."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something small for each name that the README's commands speak of."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "images").mkdir()
    (folder / "datasets" / "aid" / "beach").mkdir(parents=True)
    for path in ("image.png", "images/a.png", "datasets/aid/beach/a.png"):
        Image.effect_noise((96, 96), 60).convert("RGB").save(folder / path)
    ask = {"image": "a.png", "conversations": talk("<image>\nIs there a ship? Answer with a single word.", "yes")}
    write_json(folder / "GeoChat_Instruct.json", [{"id": "a", **ask}])
    write_json(folder / "earthdial.json", [{"id": "a", **ask, "image": "images/a.png"}])
    run("sh", "geovlm-ray data convert earthdial earthdial.json data/earthdial", folder)
    question: dict[str, Any] = {"id": "a", "task": "vqa", "images": ["image.png"], "prompt": "is there a ship ?"}
    write_json(folder / "mine.jsonl", [{**question, "id": name, "reference": "yes"} for name in "ab"])
    answer = {"id": "a", "task": "vqa", "response": "<think>I look.</think><answer>yes</answer>", "target": "yes"}
    write_json(folder / "answers.jsonl", [answer])
    box = "[[10, 10, 30, 30]]"
    write_json(folder / "earthdial.jsonl", [{"answer": box, "gt_bbox": box, "size_group": "small"}])
    return folder


def here(words: list[str]) -> list[str]:
    """A call of the README with what stands here for its words, and what makes it short."""
    call = [STANDS_FOR.get(word, word) for word in words]
    if "earthdial" in words and "--predictions" in words:
        call = ["earthdial.jsonl" if word == "answers.jsonl" else word for word in call]
    return [*call, *(word for begins, more in MORE.items() if shlex.join(call).startswith(begins) for word in more)]


def test_the_readme_does_what_it_says(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls one after the other, as later ones take up what earlier ones left."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in readme_commands():
        if not shlex.join(words).startswith(tuple(NOT_HERE)):
            assert main(here(words)) == 0, words
    assert {path.name for path in (workplace / "runs").iterdir()} == {"demo", "second", "mine"}
    assert not [begins for begins in NOT_HERE if not any(shlex.join(w).startswith(begins) for w in readme_commands())]


HELP_OF_ALL = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        print(name, "ended with", end.code)
"""


def test_benchmarks_of_the_readme_answer() -> None:
    """In one process, as all load the same things."""
    names = sorted(set(re.findall(r"-m (benchmarks\.\w+)", README.read_text())))
    command = [sys.executable, "-c", HELP_OF_ALL, *names]
    answer = subprocess.run(command, cwd=TOP, env=environment(), capture_output=True, text=True, check=False)
    said = re.findall(r"^usage: .*?(?=^usage: |\Z)", answer.stdout, re.M | re.S)
    ended = [re.findall(r"^(\S+) ended with 0$", text, re.M) for text in said if "--json" in text]
    assert ended == [[name] for name in names], answer.stderr
