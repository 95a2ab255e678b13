"""Study definitions: a question, run variants that differ in a few settings, and seeds; one YAML file per study."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator

from geovlm_ray.core.errors import ConfigError, did_you_mean
from geovlm_ray.core.section import Section


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


class ShortForm(Section):
    """Overrides and seeds of the short form."""

    settings: tuple[str, ...] = ("run.steps=4", "evaluation.every=4", "evaluation.records=24", "sft.steps=4")
    seeds: tuple[int, ...] = (0,)


class Study(Section):
    """A study. The first variant is the baseline of the others; ``measures`` are compared with the expectation."""

    name: str
    title: str
    question: str
    expectation: Expectation
    tasks: tuple[str, ...]
    data: Literal["scenes", "rotated"] = "scenes"
    settings: tuple[str, ...]
    variants: dict[str, Variant] = Field(min_length=2)
    seeds: tuple[int, ...] = (0, 1, 2)
    measures: tuple[Literal["sampled", "greedy"], ...] = ("sampled", "greedy")
    short: ShortForm = ShortForm()
    note: str = ""

    @model_validator(mode="after")
    def _expected_variants_exist(self) -> Self:
        for name in (self.expectation.better, self.expectation.worse):
            if name not in self.variants:
                known = ", ".join(self.variants)
                raise ValueError(f"expectation: expected one of the variants {known}, found {name!r}")
        return self

    def shortened(self) -> Study:
        """The short form of the study."""
        settings = (*self.settings, *self.short.settings)
        return self.model_copy(update={"settings": settings, "seeds": self.short.seeds})


def study_names() -> list[str]:
    """Names of all studies, sorted."""
    file_names = (path.name for path in files("geovlm_ray.evaluation.studies").iterdir())
    return sorted(name.removesuffix(".yaml") for name in file_names if name.endswith(".yaml"))


def load_study(name: str) -> Study:
    """Load a study; raises ConfigError if none has this name."""
    known = study_names()
    if name not in known:
        raise ConfigError(f"study {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}")
    text = (files("geovlm_ray.evaluation.studies") / f"{name}.yaml").read_text()
    return Study(name=name, **yaml.safe_load(text))
