"""The Ray cluster that a command connects to."""

from __future__ import annotations

import os


def cluster_address() -> str | None:
    """RAY_ADDRESS; None if the command starts a cluster of its own, as without it, or if it is empty or ``local``."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address
