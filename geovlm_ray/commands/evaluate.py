"""``geovlm-ray evaluate``: metrics of given responses, the published ones and the sound ones."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from geovlm_ray.evaluate import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Input, its format, and output."""
    parser.add_argument("--predictions", type=Path, required=True, help="JSON lines: responses and their targets")
    parser.add_argument("--task", help="records of this task only; with a format, the evaluation folder of the file")
    parser.add_argument("--format", choices=["earthdial"], help="default: records as `score` takes them")
    parser.add_argument("--json", type=Path, help="where the metrics go as JSON")
    parser.add_argument("overrides", nargs="*", metavar="reward.key=value", help="think mode and sentence embeddings")


def run(args: argparse.Namespace) -> int:
    """Evaluate the file, print both sets and write them."""
    from geovlm_ray.config import reward_config
    from geovlm_ray.errors import DataError
    from geovlm_ray.evaluate import evaluate_earthdial, evaluate_records
    from geovlm_ray.files import write_atomically

    config = reward_config(args.overrides)
    if args.json and not args.json.parent.is_dir():
        raise DataError(f"--json {args.json}: expected an existing folder, found no {args.json.parent}")
    if args.format and not args.task:
        raise DataError("--format earthdial: expected --task with the name of the evaluation folder, found none")
    if args.format:
        found = evaluate_earthdial(args.predictions, args.task, config)
    else:
        found = evaluate_records(args.predictions, args.task, config)
    print_tables(found, Console())
    if args.json:
        write_atomically(args.json, json.dumps(dataclasses.asdict(found), indent=2))
    return 0


def print_tables(found: Evaluation, console: Console) -> None:
    """One table a set."""
    paper = Table("metric", "value")
    for name, value in found.paper.items():
        paper.add_row(name, f"{value:.4f}")
    sound = Table("metric", "value", "95% interval")
    for name, interval in found.sound.items():
        sound.add_row(name, f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")
    console.print(f"paper: the published definitions, {found.n} records")
    console.print(paper)
    console.print("sound: what a reviewer would ask for, with bootstrap intervals")
    console.print(sound)
