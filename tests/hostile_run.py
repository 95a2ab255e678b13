"""Runs the hostile cases of commands, each in a forked child with limits: ``python -m tests.hostile_run COMMAND ...``.

Prints what is wrong, one case a line, and exits with 1 if anything is.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from geovlm_ray.cli import COMMANDS
from geovlm_ray.model.config import TINY
from geovlm_ray.model.loading import load_processor, model_folder
from tests.forked import GIB, run_forked
from tests.hostile import page_problem, problem
from tests.hostile_cases import Case, cases_of, write_materials

LOADED = (
    *("evaluation.comparison.compare", "evaluation.comparison.page", "evaluation.model", "evaluation.responses"),
    *("data.convert", "data.validation.validate", "report.html", "report.preview", "serving.answering"),
    *("serving.export.write", "training.run", "training.preflight", "training.sft"),
)
"""Modules that commands import when they run, imported before the first fork."""
MAX_MEMORY = 2 * GIB


def main() -> int:
    """Run the cases of the named commands whose label contains ``--only``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    for name in (*(f"commands.{command}" for command in COMMANDS), *LOADED):
        importlib.import_module(f"geovlm_ray.{name}")
    # It imports a hundred modules of transformers. Children share the pages of what their collector leaves alone.
    load_processor(model_folder(TINY))
    gc.collect()
    gc.freeze()
    failed = False
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name)
        write_materials(folder / "materials")
        cases = [case for command in args.commands for case in cases_of(command) if args.only in case.label]
        for wrong in _problems(cases, folder):
            failed = True
            sys.stdout.write(f"{wrong}\n")
            sys.stdout.flush()
    return int(failed)


def wrong_cases(command: str) -> str:
    """What the cases of a command did wrong, in a process of its own; empty if nothing."""
    words = [sys.executable, "-m", "tests.hostile_run", command]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout or (found.stderr if found.returncode else "")


def _problems(cases: list[Case], folder: Path) -> Iterator[str]:
    for case in cases:
        place = folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for need in case.needs:
            source = folder / "materials" / need
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / need)
        case.prepare(place)
        done = run_forked(case.arguments, place, case.stdin)
        found = problem(done.code, done.output, done.error)
        if done.peak_bytes > MAX_MEMORY:
            found = f"{done.peak_bytes / GIB:.1f} GiB of memory; {found}"
        pages = (page.read_text(errors="replace") for page in place.rglob("*.html") if page.is_file())
        found = found or next(filter(None, map(page_problem, pages)), "")
        if found:
            yield f"{case.label!r:.200}: {found}"


if __name__ == "__main__":
    sys.exit(main())
