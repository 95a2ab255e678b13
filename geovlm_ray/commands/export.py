"""``geovlm-ray export``: a merged Hugging Face model with its model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from geovlm_ray.commands.publish import add_push_arguments, publish
from geovlm_ray.core.hub import Publication
from geovlm_ray.report.terminal import open_console

DTYPES = ("float32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or Hugging Face name"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="overrides of prompt and sampling settings"
    )
    parser.add_argument("--recipe", help="recipe or YAML file of these settings (default: those of training)")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (default: that of training)")
    parser.add_argument(
        "--evaluation",
        action="append",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="results folder of `geovlm-ray evaluate` to include in the card; repeatable",
    )
    add_push_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Export the model and print its log-prob difference to the source model."""
    if args.push:
        Publication(args.out, args.push, "model")
    from geovlm_ray.serving.export.write import export
    from geovlm_ray.serving.model_ref import resolve_model

    ref = resolve_model(args.model, args.recipe, args.overrides)
    dtype = args.dtype or (ref.trained or ref.config).model.dtype
    difference = export(ref, args.model, args.out, dtype, args.evaluation)
    console = open_console()
    console.print(f"Max log-prob difference to {ref.path}: {difference:.2g}")
    console.print(f"Model: {args.out.resolve()}")
    if args.push:
        publish(Publication(args.out, args.push, "model"), args, console)
    return 0
