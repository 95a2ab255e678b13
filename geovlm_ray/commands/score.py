"""``geovlm-ray score``: rewards of given responses, offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Input, output and reward settings."""
    parser.add_argument("file", type=Path, help="JSON lines: id, task, response, target, and frame, dialect or labels")
    parser.add_argument("overrides", nargs="*", metavar="reward.key=value", help="reward settings")
    parser.add_argument("--out", type=Path, help="where the scores go; default: standard output")


def run(args: argparse.Namespace) -> int:
    """Score every line in order; 1 where a line could not be read."""
    from geovlm_ray.config import reward_config
    from geovlm_ray.errors import DataError
    from geovlm_ray.scoring import score_lines

    config = reward_config(args.overrides)
    if not args.file.is_file():
        raise DataError(f"{args.file}: expected a file of JSON lines, found none")
    with args.file.open(encoding="utf-8", errors="surrogateescape") as source:
        scored, problems = score_lines(source, config)
    for problem in problems:
        print(f"{args.file}, {problem}", file=sys.stderr)
    text = "".join(f"{line}\n" for line in scored)
    if args.out:
        args.out.write_text(text)
    else:
        sys.stdout.write(text)
    return int(bool(problems))
