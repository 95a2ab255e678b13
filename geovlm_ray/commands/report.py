"""``geovlm-ray report``: regenerate a run's report.html."""

from __future__ import annotations

import argparse
from pathlib import Path

from geovlm_ray.report.terminal import open_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run_dir", type=Path, help="run directory, such as runs/demo")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    from geovlm_ray.report.html import write_report

    open_console().print(f"Report: {write_report(args.run_dir).resolve()}")
    return 0
