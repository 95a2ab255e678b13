"""``geovlm-ray export``: a whole model with its card, ready to be shared."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

DTYPES = ("float32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, where it goes, and what the card tells."""
    parser.add_argument("model", metavar="MODEL", help="run directory, checkpoint, adapter, model folder or hub name")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of prompts and answers")
    parser.add_argument("--recipe", help="recipe or file of those settings (default: as the model was trained)")
    parser.add_argument("--dtype", choices=DTYPES, help="type of the weights (default: as the model was trained)")
    parser.add_argument(
        "--evaluation",
        action="append",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="folder of `geovlm-ray evaluate`, whose table goes into the card; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Write the model, and say how far it is from what it was made of."""
    from geovlm_ray.serving.export.write import export
    from geovlm_ray.serving.model_ref import resolve_model

    ref = resolve_model(args.model, args.recipe, args.overrides)
    dtype = args.dtype or (ref.trained or ref.config).model.dtype
    difference = export(ref, args.model, args.out, dtype, args.evaluation)
    console = Console()
    console.print(
        f"Log-probs of a drawn prompt differ by at most {difference:.2g} from those of {ref.path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Model: {args.out.resolve()}", markup=False, highlight=False, soft_wrap=True)
    return 0
