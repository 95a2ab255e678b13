"""Configuration of the training data."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from geovlm_ray.core.errors import expected_one_of
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.section import PathText, Section
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.tasks import TASKS


class Stage(Section):
    """A curriculum stage: a number of learner steps on a set of tasks. Stages run in order, as in the paper."""

    tasks: tuple[str, ...] = Field(min_length=1, description="tasks of the records that this stage trains on")
    weights: tuple[PositiveInt, ...] = Field(
        (), description="sampling weight of each of the tasks; empty: as data.mixture determines"
    )
    steps: int = Field(ge=1, description="learner steps of this stage; the last stage runs until training ends")

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            if task not in TASKS:
                raise ValueError(expected_one_of(TASKS, task))
        return tasks

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights and len(self.weights) != len(self.tasks):
            raise ValueError(f"weights: expected one for each of {len(self.tasks)} tasks, found {len(self.weights)}")
        return self


class DataConfig(Section):
    """Source of the training examples and how they are sampled."""

    source: str = Field(
        "scenes",
        description="'scenes' (synthetic scenes, unlimited), 'parquet' (output folders of `data convert`), or a format "
        "of `data convert`, which is converted on the fly",
    )
    path: PathText = Field("", description="file or folder of the source; may contain several datasets")
    root: PathText = Field(
        "", description="folder that image paths are relative to; empty: as set at conversion, or the folder of `path`"
    )
    splits: tuple[str, ...] = Field(("train",), min_length=1, description="splits used for training")
    frame: Literal["auto", "dataset", "shown", "percent", "permille"] | tuple[int, int] = Field(
        "auto",
        description="unit of boxes in prompts and answers: as the model family was pretrained, as in the dataset, "
        "pixels of the image that the model is shown, percent or permille of the image size, or pixels of an image of "
        "[width, height]",
    )
    dialect: Literal["auto", "dataset", "brackets", "json", "geochat", "tagged"] = Field(
        "auto",
        description="notation of boxes in answers: as the model family was pretrained, as in the dataset, or a dialect",
    )
    seed: int = Field(
        0, ge=0, lt=1_000_000_000, description="data seed; larger values are reserved for held-out scenes"
    )
    mixture: Literal["balanced", "natural", "temperature"] = Field(
        "balanced",
        description="sampling weight of each task: equal, its number of records (each record once per epoch), or its "
        "number of records ** (1 / temperature)",
    )
    temperature: float = Field(
        2.0, ge=1, description="temperature of mixture=temperature: 1 is natural, infinity is balanced"
    )
    stages: tuple[Stage, ...] = Field((), description="curriculum stages in order; empty: all tasks at once")
    check_images: int = Field(
        2000,
        ge=0,
        description="training records, evenly spaced, whose images are decoded, whose prompts are measured and whose "
        "reference answers are scored before a run; all others are checked for valid values only",
    )
    max_bad: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="largest fraction of bad records, which are set aside and replaced by others; above it, a run ends",
    )
    image_cache_gb: float = Field(
        2.0, ge=0, description="size limit of each node's cache of decoded images, in GiB; 0 disables it"
    )

    @property
    def answer_format(self) -> AnswerFormat | None:
        """How boxes are written; None if it depends on the model: on its family, or on the size of its images."""
        frame: Frame | None = None
        match self.frame:
            case (width, height):
                frame = Frame("pixel", width, height)
            case "percent" | "permille":
                frame = Frame(self.frame)
            case "auto" | "shown":
                return None
        if self.dialect == "auto":
            return None
        return AnswerFormat(frame, None if self.dialect == "dataset" else self.dialect)

    @model_validator(mode="after")
    def _check_frame(self) -> Self:
        if isinstance(self.frame, tuple) and min(self.frame) < 1:
            raise ValueError(f"frame: expected [width, height] above 0, found {list(self.frame)}")
        return self
