"""``geovlm-ray top``: live status of the actors of a run."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from rich.console import Group
from rich.live import Live
from rich.table import Table

from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import last_object, read_text
from geovlm_ray.core.validation import validated
from geovlm_ray.core.yaml_text import parse_yaml
from geovlm_ray.observability.heartbeat import PERIOD_S, read_heartbeats, silent
from geovlm_ray.report.terminal import open_console

NONE = "-"
TERMINAL_STATES = ("ended", "failed", "interrupted")
"""States of a process that has exited."""
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run_dir", type=Path, help="run directory, such as runs/demo")
    parser.add_argument("--once", action="store_true", help="print the table once and exit")


def run(args: argparse.Namespace) -> int:
    """Show the table until it is interrupted, or once with ``--once``."""
    console = open_console()
    status = view(args.run_dir, time.time())
    if args.once:
        console.print(status)
        return 0
    with Live(status, console=console, auto_refresh=False) as live:
        while True:
            time.sleep(PERIOD_S / 2)
            live.update(view(args.run_dir, time.time()), refresh=True)


def view(folder: Path, now: float) -> Group:
    """The progress line of a run and the table of its actors; raises RunError if ``folder`` is no run directory."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise RunError(f"{folder}: expected a run directory with a config.yaml, found none")
    heartbeats = read_heartbeats(folder)
    end = next((h["state"] for h in heartbeats if h["kind"] == "driver" and h["state"] in TERMINAL_STATES), None)
    columns = ("actor", "state", "for", "weights", "queue", "rate", "idle", "GiB", "seen")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heartbeat in heartbeats:
        if end and heartbeat["state"] not in TERMINAL_STATES:
            # The driver ends the processes of its actors, which write no last heartbeat then.
            heartbeat["state"] = "ended"
        lost = heartbeat["state"] not in TERMINAL_STATES and silent(heartbeat, now)
        table.add_row(*row(heartbeat, now), style="red" if lost else "")
    outcome = f"  {end}" if end else ""
    return Group(head(folder) + outcome, table if heartbeats else "No actor has written a heartbeat yet.")


class _Run(BaseModel):
    name: str
    steps: int


class _Config(BaseModel):
    """The keys of a run's configuration that the progress line shows."""

    run: _Run


def head(folder: Path) -> str:
    """The progress line: run name, last step, reward and step time."""
    config, file = folder / "config.yaml", folder / "metrics.jsonl"
    values = parse_yaml(read_text(config), str(config), variables=False)
    run, last = validated(TypeAdapter(_Config), values, config).run, last_object(file)
    if last is None:
        return f"{run.name}  step 0/{run.steps}"
    metrics = validated(TypeAdapter(dict[str, float]), last, f"{file}, last line")
    step, reward, seconds = (metrics.get(key, math.nan) for key in ("step", "reward/mean", "seconds/step"))
    return f"{run.name}  step {step:.0f}/{run.steps}  reward {reward:.3f}  {seconds:.1f} s/step"


def row(heartbeat: dict[str, Any], now: float) -> list[str]:
    """The table cells of one actor; ``now`` is Unix time in seconds."""
    weights, queue = (NONE if heartbeat[key] is None else str(heartbeat[key]) for key in ("weight_version", "queue"))
    state = heartbeat["state"]
    if heartbeat["kind"] == "driver" and state not in ("idle", *TERMINAL_STATES):
        state = f"waits for {state}"
    if silent(heartbeat, now) and state not in TERMINAL_STATES:
        state = f"silent (was: {state})"
    return [
        heartbeat["actor"],
        state,
        duration(now - heartbeat["since"]),
        weights,
        queue,
        f"{heartbeat['rate']:,.0f} {heartbeat['unit']}/s" if heartbeat["unit"] else NONE,
        f"{heartbeat['idle']:.0%}",
        f"{heartbeat['memory_bytes'] / 2**30:.1f}",
        duration(now - heartbeat["time"]),
    ]


def duration(seconds: float) -> str:
    """A time span in the largest unit of which it has at least two, such as ``90 s`` or ``3 h``."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 2 * size), (1, "s"))
    return f"{max(seconds, 0) / size:.0f} {unit}"
