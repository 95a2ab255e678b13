"""``geovlm-ray doctor``: checks of this machine and cluster."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one line per check; return 1 if a requirement is missing."""
    from geovlm_ray.observability.doctor import check_environment

    findings = check_environment()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name}: {finding.text}")
    return int(not all(f.ok for f in findings))
