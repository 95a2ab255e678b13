"""``geovlm-ray doctor``: checks of this machine, and of every node of the cluster at RAY_ADDRESS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from geovlm_ray.core.cluster_address import cluster_address
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.observability.doctor import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one line per check; return 1 if a requirement is missing."""
    from geovlm_ray.observability.doctor import check_environment

    console = open_console()
    findings = check_environment()
    _print(findings, console)
    if address := cluster_address():
        from actors.node_checks import check_nodes

        for node, found in check_nodes().items():
            console.print()
            console.print(f"Node {node} of the cluster at {address}:")
            _print(found, console)
            findings += found
    return int(not all(f.ok for f in findings))


def _print(findings: Sequence[Finding], console: Console) -> None:
    for finding in findings:
        console.print(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name}: {finding.text}")
