"""``geovlm-ray sft``: supervised fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from geovlm_ray.config import load_config, recipe_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Recipe, output and overrides."""
    parser.add_argument("recipe", help=f"a recipe ({', '.join(recipe_names())}) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that differ from it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--scratch", action="store_true", help="a new tiny model with random weights, not model.path")


def run(args: argparse.Namespace) -> int:
    """Train on demonstrations of the drawn scenes and write the model."""
    from geovlm_ray.sft.scenes import fine_tune

    fine_tune(load_config(args.recipe, args.overrides), args.out, scratch=args.scratch)
    return 0
