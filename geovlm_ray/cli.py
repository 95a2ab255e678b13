"""Command-line entry point: ``geovlm-ray COMMAND ...``.

Each command is a module in ``geovlm_ray.commands`` with ``add_arguments(parser)`` and ``run(args) -> int``.
Only the module of the invoked command is imported, which keeps ``--help`` fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from geovlm_ray import __version__
from geovlm_ray.core.errors import UserError, did_you_mean
from geovlm_ray.core.interrupts import Interrupted, interruptible, replaced_interrupt
from geovlm_ray.core.terminal import inert, inert_streams
from geovlm_ray.core.third_party_logs import silence_third_party_logs

COMMANDS = {
    "train": "reinforcement fine-tuning with GRPO, on a Ray cluster or in one process",
    "sft": "supervised fine-tuning, the warm-up before reinforcement learning",
    "evaluate": "evaluate a model, or given responses, on benchmarks with published and corrected metrics",
    "predict": "find objects and answer questions in scenes of any size, as a map",
    "compare": "compare runs or evaluations, with significance tests",
    "study": "run a small ablation study and write a report",
    "export": "export a merged Hugging Face model with a model card",
    "chat": "ask a model about an image in the terminal",
    "web": "ask a model about an image in a browser",
    "score": "score given responses with the reward, offline",
    "top": "show what the actors of a run are doing",
    "report": "regenerate a run's self-contained report.html",
    "data": "convert, validate, count and preview datasets",
    "config": "show settings with their descriptions, as YAML that can be used",
    "plan": "plan the GPU split between engines and learner from measured rates",
    "doctor": "check this machine and cluster",
}

INVALID_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")
"""How argparse names a value that is none of an argument's choices."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **settings})

    def error(self, message: str) -> NoReturn:
        if wrong := INVALID_CHOICE.search(message):
            message += did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(inert(message))


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code.

    0: success, 1: failure, 2: usage error, 3: a run that cannot learn, 130 or 143: interrupted.
    """
    if argv is None:
        if "_ARGCOMPLETE" in os.environ:
            completion = _module("completion")
            completion.complete(_parser(completion.typed_words()))
        argv = sys.argv[1:]
    with inert_streams():
        return _run(_parsed(argv))


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = _parser(argv)
    if not argv:
        parser.print_help()
        sys.exit(0)
    args, rest = parser.parse_known_args(argv)
    # argparse rejects positional arguments on both sides of options; overrides are accepted there.
    unknown = [a for a in rest if a.startswith("-") or "=" not in a or not hasattr(args, "overrides")]
    if unknown:
        setting = next((a.lstrip("-") for a in unknown if a.startswith("--") and "." in a), None)
        hint = f"; settings have no dashes: {setting.partition('=')[0]}=VALUE" if setting else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    _expand_home(args)
    return args


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of a command line; of all commands, only the one called has its arguments."""
    parser = _Parser(
        prog="geovlm-ray",
        description="Reinforcement fine-tuning of vision-language models for remote sensing.",
        epilog="geovlm-ray COMMAND --help shows the arguments and examples of a command.",
    )
    parser.add_argument("--version", action="version", version=f"geovlm-ray {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((a for a in argv if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == called:
            module = _module(name)
            module.add_arguments(sub)
            sub.epilog = "examples:\n" + "\n".join(f"  {line}" for line in _module("examples").EXAMPLES[name])
            sub.set_defaults(run=module.run)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"geovlm_ray.commands.{name}")


def _run(args: argparse.Namespace) -> int:
    silence_third_party_logs()
    try:
        with interruptible():
            return int(args.run(args))
    except Interrupted as error:
        return _ended(args.command, str(error), error.exit_code)
    except Exception as error:
        if interrupt := replaced_interrupt():
            return _ended(args.command, str(interrupt), interrupt.exit_code)
        if isinstance(error, UserError):
            return _ended(args.command, str(error), error.exit_code)
        if isinstance(error, OSError) and error.filename is not None:
            return _ended(args.command, f"{error.filename}: {error.strerror}", 1)
        raise


def _ended(command: str, message: str, exit_code: int) -> int:
    """Print why a command ended early, on one line."""
    print(f"geovlm-ray {command}: {inert(message)}", file=sys.stderr)
    return exit_code


def _expand_home(args: argparse.Namespace) -> None:
    """Replace a leading ``~`` in paths, which shells leave in ``--option=~/folder``."""
    for name, value in vars(args).items():
        if isinstance(value, list):
            setattr(args, name, [_expanded(item) for item in value])
        else:
            setattr(args, name, _expanded(value))


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value
