"""``geovlm-ray sft``: supervised fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from geovlm_ray.config import load_config, recipe_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("recipe", help=f"recipe ({', '.join(recipe_names())}) or YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of its settings")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="output folder, usable as model.path of train; an interrupted run resumes with the same command",
    )
    parser.add_argument(
        "--scratch", action="store_true", help="train a randomly initialized tiny model instead of model.path"
    )
    accept = "resume although files that are read have changed; OUT/contents.json and sft.html list the changes"
    parser.add_argument("--accept-changes", action="store_true", help=accept)


def run(args: argparse.Namespace) -> int:
    """Fine-tune on the target responses of the records and print the held-out evaluations."""
    from geovlm_ray.training.sft import fine_tune

    overrides = [*args.overrides, *(["sft.scratch=true"] if args.scratch else [])]
    console = Console()
    summary = fine_tune(load_config(args.recipe, overrides), args.out, console, accept_changes=args.accept_changes)
    for name, figures in (summary["evaluation"] or {}).items():
        console.print(
            f"{name} evaluation, after step {figures['step']}: held-out loss {figures['loss']:.4f}, token accuracy "
            f"{figures['token_accuracy']:.3f}",
            highlight=False,
        )
    console.print(f"Model: {args.out.resolve()}", markup=False)
    return 0
