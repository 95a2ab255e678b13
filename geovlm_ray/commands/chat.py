"""``geovlm-ray chat``: questions about images, answered in the terminal."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.schema import TASK_NAMES
from geovlm_ray.report.inert_text import inert

if TYPE_CHECKING:
    from geovlm_ray.serving.answering import Answer, Answerer

PICTURE = Path("answer.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the images, and what is asked."""
    parser.add_argument("model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or hub name")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images that all questions are about, in order")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of prompts and answers")
    parser.add_argument("--recipe", help="recipe or file of those settings (default: as the model was trained)")
    parser.add_argument("--question", help="one question (default: ask for them, until an empty line)")
    parser.add_argument("--task", choices=TASK_NAMES, metavar="TASK", help=f"of the question: {', '.join(TASK_NAMES)}")
    parser.add_argument(
        "--out",
        type=Path,
        default=PICTURE,
        metavar="PICTURE.png",
        help=f"where the last image goes with the boxes of an answer that has some (default: {PICTURE})",
    )


def run(args: argparse.Namespace) -> int:
    """Answer one question, or all that are typed."""
    from geovlm_ray.data.images import image_size

    # Images take the overrides behind them too.
    args.overrides += [name for name in args.images if "=" in name and not Path(name).exists()]
    args.images = [name for name in args.images if name not in args.overrides]
    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected the name of a PNG, found {args.out}")
    if not args.out.absolute().parent.is_dir():
        raise DataError(f"--out {args.out}: expected an existing folder, found no {args.out.parent}")
    for image in args.images:
        image_size(image)
    from geovlm_ray.serving.answering import Answerer
    from geovlm_ray.serving.model_ref import resolve_model

    console = Console()
    answerer = Answerer(resolve_model(args.model, args.recipe, args.overrides))
    if args.question is not None:
        _answer(answerer, args, args.question, console)
        return 0
    _say(console, "Questions, please; an empty line ends.")
    try:
        while question := _asked():
            try:
                _answer(answerer, args, question, console)
            except DataError as error:
                _say(console, f"{error}", "red")
    except KeyboardInterrupt:
        print()
    return 0


def _asked() -> str:
    """A line from the terminal; empty at its end."""
    import readline  # noqa: F401 - input() then lets lines be edited and called back

    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


def _answer(answerer: Answerer, args: argparse.Namespace, question: str, console: Console) -> None:
    from geovlm_ray.core.files import write_atomically

    answer = answerer.answer(args.images, question, args.task)
    print_answer(answer, answerer.frame.kind, console)
    if answer.boxes:
        sink = io.BytesIO()
        answerer.picture(args.images[-1], answer.boxes).save(sink, "PNG")
        write_atomically(args.out, sink.getvalue())
        _say(console, f"Picture: {args.out.resolve()}")


def print_answer(answer: Answer, units: str, console: Console) -> None:
    """Reasoning, answer and boxes, whose coordinates are in these units."""
    if answer.reasoning:
        _say(console, f"Reasoning: {answer.reasoning}", "dim")
    if answer.answer is None:
        _say(console, f"Not of the form that training rewarded: {answer.response}", "yellow")
    else:
        _say(console, f"Answer: {answer.answer}", "bold")
    for box in answer.boxes:
        label = f"{box.label} " if box.label else ""
        _say(console, f"Box: {label}[{', '.join(f'{c:g}' for c in box.coords)}] {units}")
    _say(console, f"({answer.seconds:.1f} s)", "dim")


def _say(console: Console, text: str, style: str = "") -> None:
    """A text as it is, without what a terminal would obey."""
    console.print(inert(text, style, kept="\n"), soft_wrap=True)
