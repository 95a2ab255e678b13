"""What a study is: a question, variants of a run that differ in little, and seeds; each a YAML file here."""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geovlm_ray.core.errors import ConfigError


class Part(BaseModel):
    """A part of a study: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(Part):
    """What the paper or its reviewers say: that one variant does better than another."""

    text: str
    better: str
    worse: str


class Variant(Part):
    """One kind of run; with ``sft`` it starts from a model that such fine-tuning makes first.

    With ``train: false`` there is nothing but the fine-tuning.
    """

    settings: tuple[str, ...] = ()
    sft: tuple[str, ...] | None = None
    train: bool = True


class Short(Part):
    """What the short form changes."""

    settings: tuple[str, ...] = ("run.steps=4", "evaluation.every=4", "evaluation.records=24", "sft.steps=4")
    seeds: tuple[int, ...] = (0,)


class Study(Part):
    """One study. The first variant is the one that others are compared with; ``measures`` are those that decide."""

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
    short: Short = Short()
    note: str = ""

    @model_validator(mode="after")
    def _expected_variants_exist(self) -> Self:
        for name in (self.expectation.better, self.expectation.worse):
            if name not in self.variants:
                raise ValueError(f"expectation names {name!r}, which is none of {', '.join(self.variants)}")
        return self

    def shortened(self) -> Study:
        """The short form."""
        settings = (*self.settings, *self.short.settings)
        return self.model_copy(update={"settings": settings, "seeds": self.short.seeds})


def study_names() -> list[str]:
    """All studies."""
    found = (path.name for path in (files("geovlm_ray.evaluation.studies")).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def load_study(name: str) -> Study:
    """A study by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in study_names():
        near = difflib.get_close_matches(name, study_names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"study {name!r}: expected one of {', '.join(study_names())}{hint}")
    text = (files("geovlm_ray.evaluation.studies") / f"{name}.yaml").read_text()
    return Study(name=name, **yaml.safe_load(text))
