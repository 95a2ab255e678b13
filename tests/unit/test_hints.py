"""What the command line suggests for words that it does not know, and what it completes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from geovlm_ray.cli import COMMANDS, main
from geovlm_ray.commands.examples import EXAMPLES
from geovlm_ray.config import SYNONYMS
from geovlm_ray.report.settings import settings
from tests.docs import parse


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("trian demo", "did you mean 'train'?"),
        ("data convrt x y z", "did you mean 'convert'?"),
        ("train deom", "did you mean 'demo'?"),
        ("train demo --run.steps 3", "settings have no dashes: run.steps=VALUE"),
        ("train demo --run.steps=3", "settings have no dashes: run.steps=VALUE"),
        ("config demo group_size=4", "did you mean 'rollout.group_size'?"),
        ("config demo learner.learning_rate=1", "did you mean 'lr'?"),
        ("config demo sft.learning_rate=1", "did you mean 'lr'?"),
        ("config demo num_generations=4", "did you mean 'rollout.group_size'?"),
        ("config demo data.max_pixels=4", "did you mean 'prompt.max_pixels'?"),
        ("config demo lora.rank=4", "did you mean 'model.lora'?"),
        ("config demo learner.kl=1", "did you mean 'learner.kl_beta' or "),
        ("config demo learner.objective=gspoo", "did you mean 'gspo'?"),
        ("config demo xyzzy=1", "expected one of plugins, tasks, run, "),
        ("evaluate --predictions x.jsonl --task vqaa", "did you mean 'vqa'?"),
    ],
)
def test_misspelled_word_is_named_with_what_was_meant(line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    code: object
    try:
        code = main(line.split())
    except SystemExit as end:
        code = end.code
    assert code in (1, 2)
    assert hint in capsys.readouterr().err.splitlines()[-1]


def test_synonyms_lead_to_settings() -> None:
    assert set(SYNONYMS.values()) <= {setting.key for setting in settings()}


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    for line in EXAMPLES[command]:
        assert line in shown
        words = shlex.split(line.partition(" > ")[0])
        parse(words[words.index("geovlm-ray") + 1 :])


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("geovlm-ray tr", ["train"]),
        ("geovlm-ray train de", ["debug-gpu", "demo"]),
        ("geovlm-ray train demo learner.lr", ["learner.lr=", "learner.lr_decay=", "learner.lr_end="]),
        ("geovlm-ray data conv", ["convert"]),
    ],
)
def test_commands_recipes_and_settings_are_completed(line: str, completions: list[str], tmp_path: Path) -> None:
    out = tmp_path / "completions"
    settings = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    environment = {**os.environ, **settings, "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    subprocess.run([sys.executable, "-m", "geovlm_ray"], env=environment, check=True, capture_output=True)
    assert [word.strip() for word in out.read_text().split("\n")] == completions
