"""``geovlm-ray chat``: questions about images in the terminal."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.report.terminal import open_console
from geovlm_ray.tasks import TASKS, find_task

if TYPE_CHECKING:
    from geovlm_ray.serving.answering import Answer, Answerer

ANNOTATED = Path("answer.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or Hugging Face name"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images of all questions, in order")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="overrides of prompt and sampling settings"
    )
    parser.add_argument("--recipe", help="recipe or YAML file of these settings (default: those of training)")
    parser.add_argument("--question", help="a single question (default: prompt for questions until an empty line)")
    parser.add_argument("--task", help=f"task of the question: one of the settings, or {', '.join(TASKS)}")
    parser.add_argument(
        "--out",
        type=Path,
        default=ANNOTATED,
        metavar="IMAGE.png",
        help=f"output: the last image annotated with the predicted boxes, if any (default: {ANNOTATED})",
    )


def run(args: argparse.Namespace) -> int:
    """Answer ``--question``, or questions from the terminal."""
    from geovlm_ray.data.images import image_size

    # argparse puts overrides that follow the images into args.images.
    args.overrides += [name for name in args.images if "=" in name and not Path(name).exists()]
    args.images = [name for name in args.images if name not in args.overrides]
    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected a .png file, found {args.out}")
    if not args.out.absolute().parent.is_dir():
        raise DataError(f"--out {args.out}: expected an existing folder, found no {args.out.parent}")
    for image in args.images:
        image_size(image)
    from geovlm_ray.serving.answering import Answerer
    from geovlm_ray.serving.model_ref import resolve_model

    console = open_console()
    ref = resolve_model(args.model, args.recipe, args.overrides)
    if args.task:
        find_task(args.task, "--")
    answerer = Answerer(ref)
    if args.question is not None:
        _answer(answerer, args, args.question, console)
        return 0
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A question in another encoding is an error of its own.
        sys.stdin.reconfigure(errors="surrogateescape")
    console.print("Enter a question; an empty line quits.")
    while question := _read_question(console):
        try:
            _answer(answerer, args, question, console)
        except DataError as error:
            console.print(f"{error}", style="red")
    return 0


def _read_question(console: Console) -> str:
    """A line from the terminal; empty at EOF."""
    import readline  # noqa: F401 - enables line editing and history in input()

    try:
        return input("> ").strip()
    except EOFError:
        console.print()
        return ""


def _answer(answerer: Answerer, args: argparse.Namespace, question: str, console: Console) -> None:
    answer = answerer.answer(args.images, question, args.task)
    print_answer(answer, console)
    if answer.boxes:
        sink = io.BytesIO()
        answerer.annotate(args.images[-1], answer).save(sink, "PNG")
        write_atomically(args.out, sink.getvalue())
        console.print(f"Image: {args.out.resolve()}")


def print_answer(answer: Answer, console: Console) -> None:
    """Print reasoning, answer and boxes."""
    if answer.reasoning:
        _print_lines(console, f"Reasoning: {answer.reasoning}", "dim")
    if answer.answer is None:
        _print_lines(console, f"Not in the trained response format: {answer.response}", "yellow")
    else:
        _print_lines(console, f"Answer: {answer.answer}", "bold")
    for box in answer.boxes:
        label = f"{box.label} " if box.label else ""
        console.print(f"Box: {label}[{', '.join(f'{c:g}' for c in box.coords)}] {answer.frame.kind}")
    console.print(f"({answer.seconds:.1f} s)", style="dim")


def _print_lines(console: Console, text: str, style: str) -> None:
    for line in text.splitlines():
        console.print(line, style=style)
