"""Reward configuration."""

from __future__ import annotations

import functools
import re
from typing import Literal, Self

from pydantic import Field, model_validator

from geovlm_ray.core.errors import ConfigError, expected_one_of
from geovlm_ray.core.schema import Rotated
from geovlm_ray.core.section import PathText, Section
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.class_names import Synonyms
from geovlm_ray.tasks.answers.grammar import ThinkMode

FUNCTION = r"^.+\.py:[A-Za-z_]\w*$"
"""Form of the name of a user reward function: ``path/file.py:function``."""


def is_function(reward: str) -> bool:
    """Whether a reward is a user function; otherwise it is a key of `geovlm_ray.rewards.registry.REWARDS`."""
    return re.match(FUNCTION, reward) is not None


class SbertConfig(Section):
    """Sentence-embedding model."""

    model: str = Field("all-MiniLM-L6-v2", description="sentence-transformers model name or folder")
    device: str = Field("cpu", description="torch device, such as cpu or cuda:0")
    batch_size: int = Field(32, ge=1, description="texts per forward pass")
    cache_size: int = Field(65_536, ge=0, description="text embeddings kept in an LRU cache")


class TextWeights(Section):
    """Weights of the metrics in a combined text reward; normalized to sum to 1."""

    sbert: float = Field(0.5, ge=0, description="weight of the cosine of sentence embeddings")
    rouge1: float = Field(1 / 6, ge=0, description="weight of ROUGE-1")
    rougeL: float = Field(1 / 6, ge=0, description="weight of ROUGE-L")  # noqa: N815 - metric name
    meteor: float = Field(1 / 6, ge=0, description="weight of METEOR; above 0 it requires WordNet")

    @model_validator(mode="after")
    def _any_weight(self) -> Self:
        if not any((self.sbert, self.rouge1, self.rougeL, self.meteor)):
            raise ValueError("expected at least one weight above 0, found none")
        return self


class RewardConfig(Section):
    """Scoring of completions; a string in place of the section sets ``function``."""

    function: PathText | None = Field(
        None, pattern=FUNCTION, description="path/file.py:function that replaces the rewards of all tasks"
    )
    time_limit_s: float = Field(5.0, gt=0, description="time limit of a user function per response, in seconds")
    stall_s: float = Field(
        600,
        gt=0,
        description="seconds without a result after which a reward or SBERT actor is replaced; the time limits of user "
        "functions come on top",
    )
    memory_limit_gb: float = Field(
        4.0, gt=0, description="limit of the memory that the process of a user function may reserve, in GiB"
    )
    environment: tuple[str, ...] = Field(
        (), description="names of environment variables that user functions see beside PATH, HOME and the like"
    )

    preset: Literal["robust", "paper"] = Field("robust", description="reward variant of every task")
    forms: dict[str, PathText] = Field(
        default_factory=dict, description="task: reward name or path/file.py:function, overriding the preset"
    )
    think: ThinkMode = Field("required", description="none: responses have no reasoning, only <answer>...</answer>")
    confidence: Literal["none", "brier"] = Field(
        "none",
        description="brier: responses end with <confidence>q</confidence>, q from 0 to 1, and accuracy a counts as "
        "(1 + a - (q - a)^2) / 2, a proper scoring rule (RLCR, arXiv 2507.16806)",
    )
    max_chars: int = Field(
        32_768, ge=1, description="maximum response length; longer ones score 0 with status too_long"
    )

    combine: Literal["sum", "weighted", "gated"] = Field(
        "sum", description="total of format f and accuracy a: f + a (the paper), weighted mean, or f * a"
    )
    format_weight: float = Field(0.2, ge=0, le=1, description="weight of the format reward if combine is weighted")
    normalize: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="task: [low, high]; accuracies are rescaled from this range to [0, 1]",
    )

    beta: float = Field(1.0, gt=0, description="beta of F-beta on labels; above 1 favours recall")
    synonyms: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="class name: its other names, beside the shipped synonyms; a name of a record's labels is never a "
        "synonym of another one",
    )
    related_names: bool = Field(
        True, description="count related names, such as ship and boat, as one class where the labels have only one"
    )
    tau: float = Field(0.5, gt=0, le=1, description="IoU threshold of detection F1 and precision")
    min_iou: float = Field(0.0, ge=0, lt=1, description="lower IoUs count as 0")
    rotated: Rotated = Field(
        "auto",
        description="rotated (polygon) IoU: true, false (IoU of the horizontal envelopes) or auto (true where a true "
        "box has an angle; the paper's forms then ignore angles)",
    )

    sbert: SbertConfig = SbertConfig()
    sbert_floor: float = Field(0.3, ge=0, lt=1, description="cosine similarity that robust caption rewards map to 0")
    hslr: TextWeights = Field(TextWeights(), description="metric weights of the HSLR change-caption reward")
    grounded: TextWeights = Field(
        TextWeights(sbert=0, rouge1=0.5, rougeL=0.5, meteor=0),
        description="metric weights of the text part of grounded descriptions",
    )
    fact_weight: float = Field(
        1.0, ge=0, le=1, description="weight of the fact gate in robust caption rewards; 0 disables it"
    )

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        for key in ("forms", "normalize"):
            for task in getattr(self, key):
                if task not in TASKS:
                    raise ValueError(f"{key}: {expected_one_of(TASKS, task)}")
        for task, (low, high) in self.normalize.items():
            if not 0 <= low < high <= 1:
                raise ValueError(f"normalize.{task}: expected 0 <= low < high <= 1, found {low}, {high}")
        return self

    @functools.cached_property
    def class_synonyms(self) -> Synonyms:
        """Synonyms of class names."""
        return Synonyms(tuple((name, *others) for name, others in self.synonyms.items()), self.related_names)

    def check_prompt(self, system: str) -> None:
        """Raise ConfigError if the system prompt does not ask for the confidence that is to be stated."""
        if self.confidence != "none" and "<confidence>" not in system:
            raise ConfigError(
                f"reward.confidence={self.confidence}: expected a prompt.system that asks for a number from 0 to 1 "
                "between <confidence> and </confidence>, found none"
            )

    def form(self, task: str) -> str:
        """Name of the reward, or of the user function, that scores a task."""
        preset = TASKS[task].default_reward if self.preset == "robust" else TASKS[task].reward
        return self.function or self.forms.get(task, preset)
