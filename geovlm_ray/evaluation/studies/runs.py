"""Runs of a study, each in its own process, several in parallel; completed runs are skipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.evaluation.studies.rotated import write_rotated
from geovlm_ray.evaluation.studies.study import Study, Variant

OnProgress = Callable[[int, str], None]


@dataclass(frozen=True)
class StudyPlan:
    """A study with its output folder ``out``, recipe and overrides; ``cluster`` runs on Ray instead of locally."""

    study: Study
    out: Path
    recipe: str
    overrides: tuple[str, ...] = ()
    cluster: bool = False

    def folder(self, variant: str, seed: int) -> Path:
        """The run directory."""
        return self.out / "runs" / run_name(variant, seed)

    def model(self, variant: str, seed: int) -> Path:
        """Folder of the fine-tuned model of a variant; all seeds of a trained variant start from the same one."""
        is_shared = self.study.variants[variant].train
        return self.out / "models" / run_name(variant, self.study.seeds[0] if is_shared else seed)

    def evaluation(self, variant: str, seed: int) -> Path:
        """Folder of the evaluation of a variant without training."""
        return self.out / "evaluations" / run_name(variant, seed)

    def settings(self, name: str, variant: Variant, seed: int) -> list[str]:
        """All overrides of a run; later ones take precedence."""
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
        """Arguments of the training command."""
        return ["train", *([] if self.cluster else ["--local"]), self.recipe, *self.settings(name, variant, seed)]

    def data_settings(self) -> list[str]:
        """Overrides of the training data."""
        stages = [f"data.stages=[{{steps: 1, tasks: [{', '.join(self.study.tasks)}]}}]"]
        if self.study.data == "scenes":
            return stages
        return [*stages, "data.source=samples", f"data.path={self.rotated_folder / 'train.jsonl'}"]

    def benchmarks(self) -> list[str]:
        """Benchmarks of the evaluations."""
        if self.study.data == "scenes":
            return [f"drawn-{task}" for task in self.study.tasks]
        return [str(self.rotated_folder / "test.jsonl")]

    @property
    def rotated_folder(self) -> Path:
        """Folder of the dataset with rotated ships."""
        return self.out / "data" / "rotated"

    def sft_command(self, name: str, variant: Variant, seed: int) -> list[str]:
        """Arguments of the fine-tuning command of a variant."""
        study_settings = [s for s in self.study.settings if s.startswith(("sft.", "prompt.", "data."))]
        variant_settings = [s for s in variant.settings if s.startswith(("prompt.", "data.", "reward."))]
        overrides = [s for s in self.overrides if s.startswith(("sft.", "prompt.", "data.", "model."))]
        return [
            *("sft", "--out", str(self.model(name, seed)), self.recipe, *self.data_settings(), *study_settings),
            *(*variant_settings, *(variant.sft or ()), *overrides, f"run.seed={seed}", f"data.seed={seed}"),
        ]

    def evaluate_command(self, name: str, seed: int) -> list[str]:
        """Arguments of the evaluation command of a variant without reinforcement learning."""
        records = dict(setting.split("=", 1) for setting in self.study.settings)["evaluation.records"]
        mode = [] if self.cluster else ["--local"]
        return [
            *("evaluate", str(self.model(name, seed)), "--recipe", self.recipe, *mode, "--limit", records),
            *("--out", str(self.evaluation(name, seed)), "--benchmarks", *self.benchmarks()),
        ]


def run_all(plan: StudyPlan, jobs: int, on_progress: OnProgress) -> dict[str, str]:
    """Run everything that is missing; return the last log line of each failed command, by name."""
    if plan.study.data == "rotated":
        write_rotated(plan.rotated_folder)
    runs = [(name, variant, seed) for seed in plan.study.seeds for name, variant in plan.study.variants.items()]
    sft_commands: dict[str, list[str]] = {}
    for name, variant, seed in runs:
        if variant.sft is not None:
            sft_commands.setdefault(plan.model(name, seed).name, plan.sft_command(name, variant, seed))
    failed = _run_commands(plan, {f"sft-{name}": command for name, command in sft_commands.items()}, jobs, on_progress)
    run_commands = {
        run_name(n, seed): plan.train_command(n, v, seed) if v.train else plan.evaluate_command(n, seed)
        for n, v, seed in runs
    }
    return failed | _run_commands(plan, run_commands, jobs, on_progress)


def run_name(variant: str, seed: int) -> str:
    """Folder name of a run."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', variant)}-{seed}"


def _run_commands(
    plan: StudyPlan, commands: dict[str, list[str]], jobs: int, on_progress: OnProgress
) -> dict[str, str]:
    """Run commands in parallel; returns the last log line of each failed one, by name."""
    logs = plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    failed = {}
    on_progress(0, f"of {len(commands)} runs done")
    with ThreadPoolExecutor(1 if plan.cluster else jobs) as pool:
        running = {pool.submit(_run_command, command, logs / f"{name}.log"): name for name, command in commands.items()}
        for done, run in enumerate(as_completed(running), 1):
            failure = run.result()
            if failure is not None:
                failed[running[run]] = failure
            on_progress(done, f"of {len(commands)} runs done")
    return failed


def _run_command(command: list[str], log: Path) -> str | None:
    """Run a geovlm-ray command; return None on success, else the last line of its log."""
    python_path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]
    with log.open("w") as output:
        process = subprocess.run(
            [sys.executable, "-m", "geovlm_ray.cli", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            # Parallel runs use one core each.
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, python_path))},
            check=False,
        )
    if process.returncode == 0:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {process.returncode}"
