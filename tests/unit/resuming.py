"""A small run with everything that it reads in one folder: shards, reward function, plugin and base weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import StartError
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.schema import Example, Prompt, Sample, SampleGroup
from geovlm_ray.data.sources import open_stream
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.preflight import Ready
from geovlm_ray.training.run import execute
from tests.system.test_restarts import CrashingLearner
from tests.unit.datasets import write_dataset
from tests.unit.test_loop import Pool, Rewards

STEPS, STOPPED = 4, 2
TASKS_OF_RUN = ("vqa", "image_captioning")
REWARD = "reward/ships.py:score"
FILES = {
    "reward/ships.py": "import helper",
    "reward/helper.py": "LIMIT = 1",
    "reward/fleet/__init__.py": "",
    "reward/fleet/size.py": "LARGE = 2",
    "plugin/plugin.py": "",
    "model/model.safetensors": "weights",
    "model/tokenizer.json": "tokenizer",
    "model/config.json": "config",
    "model/README.md": "A model.",
}
"""What the run reads beside its data, and what it does not read."""


class Engine(Pool):
    """Engine that answers every prompt of an evaluation with yes."""

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> list[list[SampleGroup]]:
        return [self.generate(prompts, **sampling)] if sampling else super().submit(prompts)

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        sample = Sample((1,), (-1.0,), "<think></think><answer>yes</answer>", "stop", self.version)
        return [SampleGroup(prompt, (sample,) * sampling["group_size"]) for prompt in prompts]


class HeldOutRewards(Rewards):
    """The rewards of the loop's tests for training, and the package's for held-out answers."""

    def __init__(self, rewards: LocalRewards) -> None:
        super().__init__()
        self.rewards = rewards

    def score(self, groups: Sequence[SampleGroup]) -> list[SampleGroup]:
        return self.rewards.score(groups) if groups[0].samples[0].text != "a" else super().score(groups)


def vqa(k: int, answer: str = "yes", split: str = "train") -> Example:
    """A record of the split."""
    return Example(f"{split}{k}", "vqa", ("scene:",), "Is there a ship?", answer, split=split)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files by their paths in a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass
class SmallRun:
    """A run of `STEPS` steps; its base weights are in ``model``, its data in ``data``."""

    folder: Path
    overrides: tuple[str, ...] = ()
    console: Console = field(default_factory=lambda: Console(quiet=True))
    data: str = "data"
    learner: type[CrashingLearner] = CrashingLearner

    @classmethod
    def create(cls, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> SmallRun:
        """Write what the run reads, with paths relative to ``folder``, the new working directory."""
        monkeypatch.chdir(folder)
        train = [vqa(k) for k in range(12)]
        write_dataset(
            folder / "data", [*train, *(vqa(k, "no" if k % 2 else "yes", "test") for k in range(4))], shards=2
        )
        write_files(folder, FILES)
        return cls(folder, overrides)

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "runs" / "a"

    def config(self, *more: str) -> Config:
        """The configuration of the run."""
        settings = [
            *(f"run.steps={STEPS}", "run.name=a", "run.dir=runs", "checkpoint.every=2", "rollout.prompts_per_step=3"),
            *("data.source=parquet", f"data.path={self.data}", "data.stages=[]", "plugins=[plugin/plugin.py]"),
            *("evaluation.num_examples=8", f"reward.forms={{image_captioning: {REWARD}}}"),
        ]
        return load_config("demo", [*settings, *self.overrides, *more])

    def train(self, *more: str, accept: bool = False, stop_after: int | None = None) -> dict[str, Any]:
        """Start or resume the run; its learner dies for good after step ``stop_after``."""
        config = self.config(*more)
        ready = Ready(Path("model"), open_stream(config.data), TASKS_OF_RUN)
        learner = self.learner([] if stop_after is None else [stop_after], StartError)
        rewards = HeldOutRewards(LocalRewards(config.reward))

        def build(*_: Any) -> Components:
            return Components(Engine(), rewards, learner)

        return execute(config, ready, build, self.console, accept_changes=accept)

    def stop(self, after: int = STOPPED) -> None:
        """Start the run, and let it end after some steps."""
        with pytest.raises(StartError):
            self.train(stop_after=after)

    def steps(self) -> list[int]:
        """The logged steps."""
        return [json.loads(line)["step"] for line in (self.run / "metrics.jsonl").read_text().splitlines()]
