"""Parsing of docs/ and the README: fenced blocks, command lines and quoted messages.

A fenced block runs if its info string is exactly ``sh`` or ``python``. A longer info string disables it: ``in FILE``
marks an excerpt of a file, any other text states why the block cannot run. A ``text`` block directly after a block that
runs is its expected output: ``...`` matches any text, and ``text, figures vary`` matches any number. Progress lines
depend on timing and are ignored.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import doctest
import functools
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest

from geovlm_ray.cli import COMMANDS, main
from geovlm_ray.commands.data import AUTO
from geovlm_ray.config import load_config, recipe_names, reward_config
from geovlm_ray.data.formats import FORMATS

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
COMMANDS_PAGE = TOP / "docs" / "commands.md"
PAGES = sorted((TOP / "docs").glob("*.md"))
FIGURES_VARY = "text, figures vary"
BLOCK_LIMIT_S = 1800

_FENCED = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_NUMBER = re.compile(r"[<>]?[-+]?\d[\d,.:]*(?:e[-+]\d+)?%?")
_COMMAND = re.compile(r"(?<![\w/`-])(?:\.venv/bin/)?geovlm-ray (?=\w)")
_LOGGED = re.compile(r"%(?:\.\d)?[sdf]")
_PROGRESS = re.compile(r"^[\d,]+ (?:records|.* [a-z]+ed)(?:, [\d,]+/s)?(?:, [\d,]+ quarantined)?\n", re.M)
_SHELL_OPERATORS = ("|", ">", "2>", "&", "&&", "||", ";")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``printed`` is the following block with its expected output."""

    page: Path
    line: int
    info: str
    text: str
    printed: Block | None = None

    @property
    def language(self) -> str:
        return self.info.split(" ")[0]

    @property
    def runs(self) -> bool:
        return self.info in ("sh", "python")

    @property
    def file(self) -> Path | None:
        """File that this block is an excerpt of."""
        return TOP / self.info.split(" in ")[1] if " in " in self.info else None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    found: list[Block] = []
    end = 0
    for match in _FENCED.finditer(text):
        block = Block(page, text[: match.start()].count("\n") + 1, match["info"], match["text"])
        if found and found[-1].runs and block.language.startswith("text") and not text[end : match.start()].strip():
            found[-1] = replace(found[-1], printed=block)
        found.append(block)
        end = match.end()
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def commands(text: str) -> Iterator[list[str]]:
    """Words of every geovlm-ray call in shell lines, up to two spaces or a ``#`` comment."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        start = _COMMAND.search(line)
        if start and not line.lstrip().startswith("#"):
            words = shlex.split(re.split(r" {2,}", line[start.end() :])[0], comments=True)
            yield list(itertools.takewhile(lambda word: word not in _SHELL_OPERATORS, words))


def readme_commands() -> list[list[str]]:
    """Words of every geovlm-ray call in the indented blocks of docs/commands.md and the README, each once."""
    text = f"{COMMANDS_PAGE.read_text()}\n{README.read_text()}"
    found = commands("\n".join(re.findall(r"^ {4}(.*)$", text, re.M)))
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def parse(words: list[str]) -> None:
    """Parse a geovlm-ray call without running it, and validate its settings, format and recipe.

    Raises:
        AssertionError, SystemExit, UserError: the call is invalid.
    """
    name = words[0]
    assert name in COMMANDS, f"geovlm-ray has no command {name}"
    parsed: list[argparse.Namespace] = []

    def capture(args: argparse.Namespace) -> int:
        parsed.append(args)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module(f"geovlm_ray.commands.{name}"), "run", capture)
        main(words)
    (args,) = parsed
    if name in ("train", "sft") and not args.recipe.endswith(".yaml"):
        assert args.recipe in recipe_names()
        load_config(args.recipe, args.overrides)
    elif name == "data" and args.action == "convert":
        options = {"negatives": "", **({} if args.format == AUTO else FORMATS[args.format].options)}
        assert {option.split("=")[0] for option in args.overrides} <= set(options)
    elif name == "score":
        reward_config([word for word in args.overrides if "=" in word])
    elif hasattr(args, "overrides"):
        load_config("demo", args.overrides)


def environment() -> dict[str, str]:
    """Environment of subprocesses: this checkout and interpreter first in the paths, without Ray variables."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": programs, "PYTHONPATH": str(TOP), "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}


def run(language: str, text: str, folder: Path) -> str:
    """Run a block in a folder and return its output; assert that it succeeds."""
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    process = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=BLOCK_LIMIT_S, check=False
    )
    assert process.returncode == 0, (
        f"{text}\nended with {process.returncode}\n{process.stdout[-4000:]}\n{process.stderr[-4000:]}"
    )
    return process.stdout


def check_printed(block: Block, printed: str) -> None:
    """Compare the output of a block with the page."""
    shown = block.printed
    if shown is None:
        return
    texts = (_PROGRESS.sub("", text) for text in (shown.text, printed))
    expected, actual = (_without_numbers(text) if shown.info == FIGURES_VARY else text for text in texts)
    if not doctest.OutputChecker().check_output(expected, actual, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE):
        lines = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), f"{shown} shows", "printed", lineterm=""
        )
        raise AssertionError("\n".join(lines))


def _without_numbers(text: str) -> str:
    """A text without its numbers and table widths."""
    return re.sub(r"[─━┏┓┗┛┡┩┠┨└┘├┤┬┴┼┳┻╇╀]+", "─", _NUMBER.sub("#", text))


@functools.cache
def messages() -> frozenset[str]:
    """Every string in the package, the actors and Ray's token check, with ``…`` for interpolated values."""
    import ray._private.authentication.authentication_constants as tokens

    files = [*(TOP / "geovlm_ray").rglob("*.py"), *(TOP / "actors").rglob("*.py"), Path(str(tokens.__file__))]
    return frozenset(_template(node) for file in files for node in ast.walk(ast.parse(file.read_text())))


def _template(node: ast.AST) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = (part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "…" for part in parts)
    return _LOGGED.sub("…", "".join(texts))
