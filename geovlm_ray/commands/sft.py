"""``geovlm-ray sft``: supervised fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from geovlm_ray.config import load_config, recipe_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Recipe, output and overrides."""
    parser.add_argument("recipe", help=f"a recipe ({', '.join(recipe_names())}) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that differ from it")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for the trained model, which train takes as model.path; the same command goes on with it",
    )
    parser.add_argument("--scratch", action="store_true", help="a new tiny model with random weights, not model.path")


def run(args: argparse.Namespace) -> int:
    """Train on the ideal responses to the records, and say what came of it."""
    from geovlm_ray.training.sft import fine_tune

    overrides = [*args.overrides, *(["sft.scratch=true"] if args.scratch else [])]
    console = Console()
    summary = fine_tune(load_config(args.recipe, overrides), args.out, console)
    for name, figures in (summary["evaluation"] or {}).items():
        console.print(
            f"{name} evaluation, after step {figures['step']}: held-out loss {figures['loss']:.4f}, token accuracy "
            f"{figures['token_accuracy']:.3f}",
            highlight=False,
        )
    console.print(f"Model: {args.out.resolve()}", markup=False)
    return 0
