"""``geovlm-ray data``: look at the drawn scenes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with data."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    scenes = actions.add_parser("scenes", help="a picture of drawn scenes of every task, their boxes drawn on them")
    scenes.add_argument("--out", type=Path, default=Path("scenes.png"), help="PNG to write (default: scenes.png)")
    scenes.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    scenes.add_argument("--each", type=int, default=4, help="scenes of each task (default: 4)")


def run(args: argparse.Namespace) -> int:
    """Write the picture."""
    from geovlm_ray.report.scenes import contact_sheet

    contact_sheet(args.seed, args.each).save(args.out)
    print(f"Scenes: {args.out.resolve()}")
    return 0
