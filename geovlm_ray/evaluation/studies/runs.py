"""The runs of a study, a process each, some at a time. What is finished is not run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.evaluation.studies.rotated import write_rotated
from geovlm_ray.evaluation.studies.study import Study, Variant

OnProgress = Callable[[int, str], None]


@dataclass(frozen=True)
class StudyPlan:
    """How a study is run: below ``out``, from a recipe, with settings on top, in one process a run or on a cluster."""

    study: Study
    out: Path
    recipe: str
    overrides: tuple[str, ...] = ()
    cluster: bool = False

    def folder(self, variant: str, seed: int) -> Path:
        """The run directory."""
        return self.out / "runs" / run_name(variant, seed)

    def model(self, variant: str, seed: int) -> Path:
        """Where fine-tuning leaves the model of a variant; those that are trained on start from one."""
        first = self.study.variants[variant].train
        return self.out / "models" / run_name(variant, self.study.seeds[0] if first else seed)

    def evaluation(self, variant: str, seed: int) -> Path:
        """The evaluation of a model that is not trained on."""
        return self.out / "evaluations" / run_name(variant, seed)

    def settings(self, name: str, variant: Variant, seed: int) -> list[str]:
        """All settings of a run, in the order in which they count."""
        model = [f"model.path={self.model(name, seed)}"] if variant.sft is not None else []
        return [
            *self.data_settings(),
            f"evaluation.benchmarks=[{', '.join(self.benchmarks())}]",
            *self.study.settings,
            *variant.settings,
            *model,
            *self.overrides,
            f"run.dir={self.out / 'runs'}",
            f"run.name={run_name(name, seed)}",
            f"run.seed={seed}",
            f"data.seed={seed}",
        ]

    def train_command(self, name: str, variant: Variant, seed: int) -> list[str]:
        """The command of a run."""
        where = [] if self.cluster else ["--local"]
        return ["train", *where, self.recipe, *self.settings(name, variant, seed)]

    def data_settings(self) -> list[str]:
        """What is trained on."""
        stages = [f"data.stages=[{{steps: 1, tasks: [{', '.join(self.study.tasks)}]}}]"]
        if self.study.data == "scenes":
            return stages
        return [*stages, "data.source=samples", f"data.path={self.rotated / 'train.jsonl'}"]

    def benchmarks(self) -> list[str]:
        """What is evaluated on."""
        if self.study.data == "scenes":
            return [f"drawn-{task}" for task in self.study.tasks]
        return [str(self.rotated / "test.jsonl")]

    @property
    def rotated(self) -> Path:
        """Folder of the scenes with rotated ships."""
        return self.out / "data" / "rotated"

    def sft_command(self, name: str, variant: Variant, seed: int) -> list[str]:
        """The command of the fine-tuning that a variant starts from."""
        settings = [s for s in self.study.settings if s.startswith(("sft.", "prompt.", "data."))]
        mine = [s for s in variant.settings if s.startswith(("prompt.", "data.", "reward."))]
        own = [s for s in self.overrides if s.startswith(("sft.", "prompt.", "data.", "model."))]
        seeds = [f"run.seed={seed}", f"data.seed={seed}"]
        out = ["--out", str(self.model(name, seed))]
        return ["sft", *out, self.recipe, *self.data_settings(), *settings, *mine, *(variant.sft or ()), *own, *seeds]

    def evaluate_command(self, name: str, seed: int) -> list[str]:
        """The command that evaluates a variant that is not trained by reinforcement."""
        records = next(
            s.partition("=")[2] for s in reversed(self.study.settings) if s.startswith("evaluation.records=")
        )
        where = [] if self.cluster else ["--local"]
        return [
            *("evaluate", str(self.model(name, seed)), "--recipe", self.recipe, *where, "--limit", records),
            *("--out", str(self.evaluation(name, seed)), "--benchmarks", *self.benchmarks()),
        ]


def run_all(plan: StudyPlan, jobs: int, on_progress: OnProgress) -> dict[str, str]:
    """Run everything that is missing; returns what failed, by name, with the last line that it said."""
    failed: dict[str, str] = {}
    if plan.study.data == "rotated":
        write_rotated(plan.rotated)
    each = [(name, variant, seed) for seed in plan.study.seeds for name, variant in plan.study.variants.items()]
    tuned: dict[str, list[str]] = {}
    for name, variant, seed in each:
        if variant.sft is not None:
            tuned.setdefault(plan.model(name, seed).name, plan.sft_command(name, variant, seed))
    _run(plan, {f"sft-{name}": command for name, command in tuned.items()}, jobs, on_progress, failed)
    rest = {
        run_name(n, seed): plan.train_command(n, v, seed) if v.train else plan.evaluate_command(n, seed)
        for n, v, seed in each
    }
    _run(plan, rest, jobs, on_progress, failed)
    return failed


def run_name(variant: str, seed: int) -> str:
    """A name for a folder."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', variant)}-{seed}"


def _run(
    plan: StudyPlan, commands: dict[str, list[str]], jobs: int, on_progress: OnProgress, failed: dict[str, str]
) -> None:
    done, lock = 0, threading.Lock()
    logs = plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def one(item: tuple[str, list[str]]) -> None:
        nonlocal done
        name, command = item
        problem = _run_one(command, logs / f"{name}.log")
        with lock:
            done += 1
            if problem is not None:
                failed[name] = problem
            on_progress(done, f"of {len(commands)} runs done")

    on_progress(0, f"of {len(commands)} runs done")
    with ThreadPoolExecutor(1 if plan.cluster else jobs) as pool:
        list(pool.map(one, commands.items()))


def _run_one(command: list[str], log: Path) -> str | None:
    """Run a command of this program; the last line of what it said where it fails."""
    with log.open("w") as output:
        made = subprocess.run(
            [sys.executable, "-m", "geovlm_ray.cli", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            # Runs side by side have a core each.
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_paths())},
            check=False,
        )
    if made.returncode == 0:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {made.returncode}"


def _paths() -> Iterator[str]:
    """Where this very package lies, before what the environment says."""
    yield str(Path(__file__).parents[3])
    if os.environ.get("PYTHONPATH"):
        yield os.environ["PYTHONPATH"]
