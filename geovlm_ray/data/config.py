"""Where prompts come from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from geovlm_ray.schema import TASK_NAMES


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

    source: str = Field("scenes", description="'scenes' (drawn without end) or a format that is read from `path`")
    path: str = Field("", description="file of a source that is read")
    root: str = Field("", description="folder that image paths are relative to; empty: the folder of `path`")
    seed: int = Field(0, ge=0, lt=1_000_000_000, description="larger ones are kept for held-out scenes")
    mixture: Literal["balanced", "natural"] = Field(
        "balanced", description="equal numbers of prompts for every task, or every record once an epoch"
    )
    stages: tuple[Stage, ...] = Field((), description="tasks one after the other; empty: all tasks together")
