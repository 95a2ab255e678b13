"""``geovlm-ray doctor``: what this machine can do."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Print one line a finding; 1 where something needed is missing."""
    from geovlm_ray.observability.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'MISS'}  {finding.name}: {finding.text}")
    return int(not all(f.good for f in findings))
