"""Study definitions: a question, run variants that differ in a few settings, and seeds; one YAML file per study."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator

from geovlm_ray.core.errors import ConfigError, did_you_mean
from geovlm_ray.core.section import Section

Measure = Literal["greedy", "sampled"]
SETTINGS = (
    "run.steps=60",
    "rollout.prompts_per_step=16",
    "rollout.group_size=8",
    "learner.lr=2.0e-4",
    "learner.lr_decay=linear",
    "learner.warmup_steps=5",
    "loop.max_staleness=0",
    "checkpoint.every=1000",
    "evaluation.num_examples=0",
    "evaluation.every=60",
    "evaluation.records=400",
    "sft.steps=100",
    "sft.lr=1.0e-3",
    "sft.optimizer=muon",
    "sft.warmup_steps=10",
    "sft.eval_examples=0",
    "sft.checkpoint_every=1000",
    "sft.readers=0",
)
"""Settings of all studies; those of a study follow, then those of a variant. Fine-tuning uses a single process, so that
its CPU time is comparable with that of reinforcement learning."""
SHORT = ("run.steps=4", "evaluation.every=4", "evaluation.records=24", "sft.steps=4")
"""Settings of the short form, which has one seed."""


class Conclusions(Section):
    """Beginnings of the sentence that answers the question.

    ``supports`` and ``contradicts`` are advice, used if the verdict on the expectation is that. ``choice`` begins with
    "whether" and names both options, for the case that they do not differ or the study is undecided.
    """

    supports: str
    contradicts: str
    choice: str = Field(pattern="^whether ")


class Expectation(Section):
    """A claim of the paper or its reviewers: variant ``better`` outperforms variant ``worse``."""

    text: str
    better: str
    worse: str


class Variant(Section):
    """Settings of a run; those of ``sft`` first fine-tune its model, and without ``train`` only that happens."""

    settings: tuple[str, ...] = ()
    sft: tuple[str, ...] | None = None
    train: bool = True


class Study(Section):
    """A study. The first variant is the baseline of the others.

    A difference below ``equivalence``, in percentage points of the score, counts as none. ``seeds`` is the number of
    seeds, 0 to ``seeds - 1``. The first of the ``measures`` decides the answer. ``note`` explains the design.
    """

    name: str
    title: str
    question: str
    answers: Conclusions
    expectation: Expectation
    equivalence: float = Field(2.0, gt=0)
    tasks: tuple[str, ...] = ("multilabel_classification", "vqa", "object_detection", "visual_grounding")
    data: Literal["scenes", "rotated"] = "scenes"
    settings: tuple[str, ...] = ()
    variants: dict[str, Variant] = Field(min_length=2)
    seeds: int = Field(ge=1)
    measures: tuple[Measure, ...] = Field(("greedy", "sampled"), min_length=1)
    note: str

    @model_validator(mode="after")
    def _expected_variants_exist(self) -> Self:
        for name in (self.expectation.better, self.expectation.worse):
            if name not in self.variants:
                known = ", ".join(self.variants)
                raise ValueError(f"expectation: expected one of the variants {known}, found {name!r}")
        return self

    def shortened(self) -> Study:
        """The short form of the study."""
        return self.model_copy(update={"settings": (*self.settings, *SHORT), "seeds": 1})

    def with_seeds(self, seeds: int) -> Study:
        """The study with another number of seeds.

        Raises:
            ConfigError: it is not positive.
        """
        if seeds < 1:
            raise ConfigError(f"--seeds: expected at least 1, found {seeds}")
        return self.model_copy(update={"seeds": seeds})


def study_names() -> list[str]:
    """Names of all studies, sorted."""
    file_names = (path.name for path in files("geovlm_ray.evaluation.studies").iterdir())
    return sorted(name.removesuffix(".yaml") for name in file_names if name.endswith(".yaml"))


def load_study(name: str) -> Study:
    """Load a study; raises ConfigError if none has this name."""
    known = study_names()
    if name not in known:
        raise ConfigError(f"study {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}")
    values = yaml.safe_load((files("geovlm_ray.evaluation.studies") / f"{name}.yaml").read_text())
    return Study(name=name, **values | {"settings": (*SETTINGS, *values.get("settings", ()))})
