"""``geovlm-ray report``: a run's page, made again."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run directory."""
    parser.add_argument("run_dir", type=Path, help="folder of a run, such as runs/demo")


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from geovlm_ray.report.html import write_report

    print(f"Report: {write_report(args.run_dir).resolve()}")
    return 0
