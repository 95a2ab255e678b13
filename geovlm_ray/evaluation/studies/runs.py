"""Commands of a study: fine-tuning, training and evaluation of each variant and seed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.files import text_digest
from geovlm_ray.evaluation.contents import run_inputs
from geovlm_ray.evaluation.results import RESULTS
from geovlm_ray.evaluation.studies.study import Study

SFT_SECTIONS = ("sft.", "model.", "prompt.", "data.", "reward.")
"""Sections that determine a fine-tuned model."""


@dataclass(frozen=True)
class Command:
    """A geovlm-ray command of a study; ``result`` is the file that it writes last.

    ``digest`` is of its configuration and of the files that this names, which the ``arguments`` do not tell.
    """

    name: str
    arguments: tuple[str, ...]
    result: Path
    digest: str


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

    @functools.cached_property
    def contents(self) -> str:
        """Digests of the files that the recipe and the overrides name: data, model, reward functions, plugins."""
        config = load_config(self.recipe, [*self._common_settings(), *self.overrides])
        model = Path(config.model.path)
        self.logs.mkdir(parents=True, exist_ok=True)
        record = ContentRecord(self.logs / CONTENTS_FILE)
        found = record.measure(run_inputs(config, self.study.tasks, model if model.is_dir() else None, config.reward))
        record.write()
        return json.dumps(found, sort_keys=True)

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
        return Command(f"sft-{run_name(name, seed)}", arguments, model / "sft_summary.json", self._digest(settings))

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
        return Command(run_name(name, seed), tuple(arguments), result, self._digest(settings))

    def _digest(self, settings: Iterable[str]) -> str:
        return text_digest(to_yaml(load_config(self.recipe, settings)) + self.contents)

    def _run_settings(self, name: str, seed: int) -> list[str]:
        """All overrides of a run; later ones take precedence."""
        variant = self.study.variants[name]
        return [
            *self._common_settings(),
            *variant.settings,
            *self.overrides,
            *([f"model.path={self.model(name, seed)}"] if variant.sft is not None else []),
            f"run.dir={self.out / 'runs'}",
            f"run.name={run_name(name, seed)}",
            *_seeds(seed),
        ]

    def _common_settings(self) -> list[str]:
        benchmarks = f"evaluation.benchmarks=[{', '.join(self.benchmarks())}]"
        return [*self._data_settings(), benchmarks, *self.study.settings]

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
