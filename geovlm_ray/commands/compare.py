"""``geovlm-ray compare``: comparison of runs or evaluations with significance tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geovlm_ray.commands.progress import Progress
from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.report.terminal import open_console

PAGE = Path("compare.html")
MIN_DRAWS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of a training run (its newest evaluation is used) or of an evaluation; the first is the baseline",
    )
    parser.add_argument("--out", type=Path, default=PAGE, help=f"output page (default: {PAGE})")
    parser.add_argument("--json", type=Path, help="output of all results as JSON")
    parser.add_argument("--draws", type=int, help="bootstrap resamples (default: 10000)")


def run(args: argparse.Namespace) -> int:
    """Compare, print the tables, write the page and the JSON."""
    from geovlm_ray.evaluation.comparison.compare import as_json, compare
    from geovlm_ray.evaluation.comparison.page import comparison_page
    from geovlm_ray.evaluation.comparison.paired import DRAWS
    from geovlm_ray.evaluation.comparison.sources import read_sources
    from geovlm_ray.evaluation.comparison.terminal import print_comparison

    for option, path in (("--out", args.out), ("--json", args.json)):
        if path and not path.parent.is_dir():
            raise DataError(f"{option} {path}: expected an existing folder, found no {path.parent}")
    draws = DRAWS if args.draws is None else args.draws
    if draws < MIN_DRAWS:
        raise ConfigError(f"--draws: expected at least {MIN_DRAWS}, found {draws}")
    console = open_console()
    with Progress(console) as progress:
        comparison = compare(read_sources(args.folders), draws, progress.show)
    print_comparison(comparison, console)
    if args.json:
        write_atomically(args.json, json.dumps(as_json(comparison), indent=2) + "\n")
    write_atomically(args.out, comparison_page(comparison))
    console.print(f"Page: {args.out.resolve()}")
    return 0
