"""Commands of a study: fine-tuning, training and evaluation of each variant and seed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.config import load_config
from geovlm_ray.evaluation.results import RESULTS
from geovlm_ray.evaluation.studies.study import Study

SFT_SECTIONS = ("sft.", "model.", "prompt.", "data.", "reward.")
"""Sections that determine a fine-tuned model."""


@dataclass(frozen=True)
class Command:
    """A geovlm-ray command of a study; ``result`` is the file that it writes last."""

    name: str
    arguments: tuple[str, ...]
    result: Path


@dataclass(frozen=True)
class StudyPlan:
    """A study with its output folder ``out``, recipe and overrides; ``cluster`` runs on Ray instead of locally."""

    study: Study
    out: Path
    recipe: str
    overrides: tuple[str, ...] = ()
    cluster: bool = False

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of every run, by seed."""
        return [(variant, seed) for seed in range(self.study.seeds) for variant in self.study.variants]

    @property
    def start(self) -> str:
        """Model that all variants start from, some of them after fine-tuning."""
        return load_config(self.recipe, _of_sft([*self.study.settings, *self.overrides])).model.path

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.out / "logs"

    @property
    def rotated_folder(self) -> Path:
        """Folder of the dataset with rotated ships."""
        return self.out / "data" / "rotated"

    def folder(self, variant: str, seed: int) -> Path:
        """The run directory."""
        return self.out / "runs" / run_name(variant, seed)

    def model(self, variant: str, seed: int) -> Path:
        """Folder of the fine-tuned model of a variant."""
        return self.out / "models" / run_name(variant, seed)

    def evaluation(self, variant: str, seed: int) -> Path:
        """Folder of the evaluation of a variant without training."""
        return self.out / "evaluations" / run_name(variant, seed)

    def benchmarks(self) -> list[str]:
        """Benchmarks of the evaluations."""
        if self.study.data == "scenes":
            return [f"drawn-{task}" for task in self.study.tasks]
        return [str(self.rotated_folder / "test.jsonl")]

    def sft_command(self, name: str, seed: int) -> Command:
        """The fine-tuning command of a variant."""
        variant, model = self.study.variants[name], self.model(name, seed)
        settings = [
            *self._data_settings(),
            *_of_sft(self.study.settings),
            *_of_sft(variant.settings),
            *(variant.sft or ()),
            *_of_sft(self.overrides),
            *_seeds(seed),
        ]
        arguments = ("sft", "--out", str(model), self.recipe, *settings)
        return Command(f"sft-{run_name(name, seed)}", arguments, model / "sft_summary.json")

    def run_command(self, name: str, seed: int) -> Command:
        """The training command of a variant, or the evaluation command of one without training."""
        mode = [] if self.cluster else ["--local"]
        settings = self._run_settings(name, seed)
        if self.study.variants[name].train:
            arguments, result = ["train", *mode, self.recipe, *settings], self.folder(name, seed) / "summary.json"
        else:
            records = dict(setting.split("=", 1) for setting in settings)["evaluation.records"]
            arguments = ["evaluate", str(self.model(name, seed)), *settings, "--recipe", self.recipe, *mode]
            arguments += ["--limit", records, "--out", str(self.evaluation(name, seed))]
            arguments += ["--benchmarks", *self.benchmarks()]
            result = self.evaluation(name, seed) / RESULTS
        return Command(run_name(name, seed), tuple(arguments), result)

    def _run_settings(self, name: str, seed: int) -> list[str]:
        """All overrides of a run; later ones take precedence."""
        variant = self.study.variants[name]
        return [
            *self._data_settings(),
            f"evaluation.benchmarks=[{', '.join(self.benchmarks())}]",
            *self.study.settings,
            *variant.settings,
            *self.overrides,
            *([f"model.path={self.model(name, seed)}"] if variant.sft is not None else []),
            f"run.dir={self.out / 'runs'}",
            f"run.name={run_name(name, seed)}",
            *_seeds(seed),
        ]

    def _data_settings(self) -> list[str]:
        stages = [f"data.stages=[{{steps: 1, tasks: [{', '.join(self.study.tasks)}]}}]"]
        if self.study.data == "scenes":
            return stages
        return [*stages, "data.source=samples", f"data.path={self.rotated_folder / 'train.jsonl'}"]


def run_name(variant: str, seed: int) -> str:
    """Folder name of a run."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', variant)}-{seed}"


def _of_sft(settings: Iterable[str]) -> list[str]:
    return [setting for setting in settings if setting.startswith(SFT_SECTIONS)]


def _seeds(seed: int) -> list[str]:
    return [f"run.seed={seed}", f"data.seed={seed}"]
