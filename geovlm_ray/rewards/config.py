"""What the rewards may be told, each setting with one home."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.grammar import ThinkMode


class SbertConfig(BaseModel):
    """The sentence-embedding model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field("all-MiniLM-L6-v2", description="a sentence-transformers name or folder")
    device: str = Field("cpu", description="torch device, such as cpu or cuda:0")
    batch_size: int = Field(32, ge=1, description="texts per forward pass")
    cache_size: int = Field(65_536, ge=0, description="reference embeddings kept, least recently used dropped first")


class TextWeights(BaseModel):
    """Weights of the parts of a hybrid text reward; they are divided by their sum."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sbert: float = Field(0.5, ge=0)
    rouge1: float = Field(1 / 6, ge=0)
    rougeL: float = Field(1 / 6, ge=0)  # noqa: N815 - the metric's name
    meteor: float = Field(1 / 6, ge=0, description="above 0 needs WordNet")

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not math.fsum((self.sbert, self.rouge1, self.rougeL, self.meteor)) > 0:
            raise ValueError("at least one weight must be above 0")
        return self


class RewardConfig(BaseModel):
    """How completions are scored; a string in place of the section is its ``function``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    function: str | None = Field(
        None, pattern=r"^.+\.py:[A-Za-z_]\w*$", description="path/file.py:function, a reward in place of all forms"
    )
    time_limit_s: float = Field(5.0, gt=0, description="seconds that `function` has for a response")

    preset: Literal["robust", "paper"] = Field("robust", description="the form of every task's reward")
    forms: dict[str, str] = Field(default_factory=dict, description="task: form, where it is not the preset's")
    think: ThinkMode = Field("required", description="none: answers carry no reasoning, only <answer>...</answer>")
    max_chars: int = Field(32_768, ge=1, description="longer responses score 0 with status too_long")

    combine: Literal["sum", "weighted", "gated"] = Field(
        "sum", description="total of format f and accuracy a: f + a (the paper's), a weighted mean, or f * a"
    )
    format_weight: float = Field(0.2, ge=0, le=1, description="weight of the format where combine is weighted")
    normalize: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="task: [low, high]; its accuracy enters the total mapped from there to [0, 1]",
    )

    beta: float = Field(1.0, gt=0, description="of F-beta on labels; above 1 favours recall")
    tau: float = Field(0.5, gt=0, le=1, description="IoU at which F1 and precision of boxes call a box found")
    min_iou: float = Field(0.0, ge=0, lt=1, description="matched IoU below it counts as 0")
    rotated: bool = Field(False, description="boxes with an angle by polygon IoU, not as horizontal boxes")

    sbert: SbertConfig = SbertConfig()
    sbert_floor: float = Field(0.3, ge=0, lt=1, description="cosine that the robust forms map to 0")
    hslr: TextWeights = Field(TextWeights(), description="parts of the hybrid reward of change captions")
    grounded: TextWeights = Field(
        TextWeights(sbert=0, rouge1=0.5, rougeL=0.5, meteor=0), description="text part of grounded descriptions"
    )
    fact_weight: float = Field(
        1.0, ge=0, le=1, description="share of the fact gate in robust caption rewards; 0 leaves facts uncompared"
    )

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        for task in (*self.forms, *self.normalize):
            if task not in TASKS:
                raise ValueError(f"no task {task!r}; expected one of {', '.join(TASKS)}")
        for task, (low, high) in self.normalize.items():
            if not 0 <= low < high <= 1:
                raise ValueError(f"normalize.{task}: expected 0 <= low < high <= 1, found {low}, {high}")
        return self

    def form(self, task: str) -> str:
        """The name of the form, or of the user's function, that scores a task."""
        preset = TASKS[task].default_reward if self.preset == "robust" else TASKS[task].reward
        return self.function or self.forms.get(task, preset)
