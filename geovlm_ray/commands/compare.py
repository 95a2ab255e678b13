"""``geovlm-ray compare``: runs and evaluations side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geovlm_ray.commands.progress import Progress, open_console
from geovlm_ray.core.errors import ConfigError, DataError

PAGE = Path("compare.html")
LEAST_DRAWS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders, and where what is found goes."""
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of a training run (its newest evaluation counts) or of an evaluation; others are tested against "
        "the first",
    )
    parser.add_argument("--out", type=Path, default=PAGE, help=f"where the page goes (default: {PAGE})")
    parser.add_argument("--json", type=Path, help="where all numbers go as JSON")
    parser.add_argument("--draws", type=int, help="resamples of each bootstrap (default: 10000)")


def run(args: argparse.Namespace) -> int:
    """Compare, print the tables, write the page and the numbers."""
    from geovlm_ray.core.files import write_atomically
    from geovlm_ray.evaluation.comparison.compare import as_json, compare
    from geovlm_ray.evaluation.comparison.page import comparison_page
    from geovlm_ray.evaluation.comparison.paired import DRAWS
    from geovlm_ray.evaluation.comparison.sources import read_sources
    from geovlm_ray.evaluation.comparison.terminal import print_comparison

    for option, path in (("--out", args.out), ("--json", args.json)):
        if path and not path.parent.is_dir():
            raise DataError(f"{option} {path}: expected an existing folder, found no {path.parent}")
    draws = DRAWS if args.draws is None else args.draws
    if draws < LEAST_DRAWS:
        raise ConfigError(f"--draws: expected at least {LEAST_DRAWS}, found {draws}")
    console = open_console()
    with Progress(console) as progress:
        found = compare(read_sources(args.folders), draws, progress.show)
    print_comparison(found, console)
    if args.json:
        write_atomically(args.json, json.dumps(as_json(found), indent=2) + "\n")
    write_atomically(args.out, comparison_page(found))
    console.print(f"Page: {args.out.resolve()}", soft_wrap=True, highlight=False, markup=False)
    return 0
