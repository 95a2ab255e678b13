"""Where prompts come from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import TASK_NAMES


class Stage(BaseModel):
    """A stretch of training on some tasks; stages follow one another, as in the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tasks: tuple[str, ...] = Field(min_length=1)
    steps: int = Field(ge=1, description="learner steps of this stage; the last stage goes on to the end")

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            if task not in TASK_NAMES:
                raise ValueError(f"{task!r} is no task; expected one of {', '.join(TASK_NAMES)}")
        return tasks


class DataConfig(BaseModel):
    """A source of examples and the order in which they are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str = Field(
        "scenes",
        description="'scenes' (drawn without end), 'parquet' (folders that `data convert` wrote), or a format of "
        "`data convert`, which is then read as it is",
    )
    path: str = Field("", description="file or folder of a source that is read; several datasets may lie below it")
    root: str = Field("", description="folder that image paths are relative to; empty: as converted, or beside `path`")
    splits: tuple[str, ...] = Field(("train",), min_length=1, description="splits of records that are trained on")
    frame: Literal["dataset", "percent", "permille"] | tuple[int, int] = Field(
        "percent",
        description="units in which the model answers with boxes: as the dataset writes them, percent or permille of "
        "the image, or pixels of an image of [width, height]",
    )
    seed: int = Field(0, ge=0, lt=1_000_000_000, description="larger ones are kept for held-out scenes")
    mixture: Literal["balanced", "natural", "temperature"] = Field(
        "balanced",
        description="share of each task: equal, by its number of records (then every record comes once an epoch), or "
        "by that number ** (1 / temperature)",
    )
    temperature: float = Field(2.0, ge=1, description="of the mixture of that name: 1 is natural, large is balanced")
    stages: tuple[Stage, ...] = Field((), description="tasks one after the other; empty: all tasks together")
    image_cache_gb: float = Field(2.0, ge=0, description="bound of each node's cache of decoded images; 0: none")

    @property
    def answer_frame(self) -> Frame | None:
        """The frame in which the model answers; None where that is the dataset's."""
        if isinstance(self.frame, tuple):
            return Frame("pixel", *self.frame)
        return None if self.frame == "dataset" else Frame(self.frame)

    @model_validator(mode="after")
    def _frame_has_an_area(self) -> Self:
        if isinstance(self.frame, tuple) and min(self.frame) < 1:
            raise ValueError(f"frame: expected [width, height] above 0, found {list(self.frame)}")
        return self
