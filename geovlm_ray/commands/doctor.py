"""``geovlm-ray doctor``: checks of this machine and cluster."""

from __future__ import annotations

import argparse

from geovlm_ray.report.terminal import open_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one line per check; return 1 if a requirement is missing."""
    from geovlm_ray.observability.doctor import check_environment

    findings, console = check_environment(), open_console()
    for finding in findings:
        console.print(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name}: {finding.text}")
    return int(not all(f.ok for f in findings))
