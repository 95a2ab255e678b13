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
    from geovlm_ray.errors import ConfigError
    from geovlm_ray.report.scenes import contact_sheet

    if args.seed < 0 or args.each < 1:
        raise ConfigError(f"expected --seed of 0 or more and --each of 1 or more, found {args.seed} and {args.each}")
    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected the name of a PNG, found {args.out}")
    contact_sheet(args.seed, args.each).save(args.out)
    print(f"Scenes: {args.out.resolve()}")
    return 0
