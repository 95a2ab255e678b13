"""Policy model and prompt settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import Example
from geovlm_ray.core.section import PathText, Section
from geovlm_ray.tasks.instructions import question_and_instruction

TINY = "tiny"
PACKAGED = {TINY: "tiny-qwen2.5-vl", "tiny-start": "tiny-qwen2.5-vl-start"}
"""Policies that ship with the package, by name: the folder in ``geovlm_ray/model/assets``.

Both were fine-tuned on generated scenes, ``tiny`` as far as it goes, ``tiny-start`` for a quarter of the steps: the
start of reinforcement learning in the demo.
"""
EO_SYSTEM_PROMPT = (
    "You are an expert in reasoning about Earth Observation imagery. Analyse the question and the image step by "
    "step. Write your reasoning between <think> and </think>, then the final response between <answer> and "
    "</answer>. Be clear, logical and concise."
)


class PromptConfig(Section):
    """Prompt template and image resolution."""

    system: str = Field(EO_SYSTEM_PROMPT, description="system message; empty for none")
    instructions: bool = Field(True, description="append the task's answer-format instruction to the question")
    list_classes: int = Field(
        60, ge=0, description="the instruction lists the class names of records with at most this many; 0: never"
    )
    caption_words: int | None = Field(
        None, ge=1, description="length of captions that the instruction asks for; null: as the task's instruction says"
    )
    resolution: Literal["fixed", "native", "tiles"] = Field(
        "fixed",
        description="fixed: squares of image_size; native: original size and aspect ratio, within min_pixels and "
        "max_pixels; tiles: the whole image and its tiles, each a square of image_size",
    )
    image_size: int = Field(448, ge=28, le=4096, description="side in pixels of the square that images are resized to")
    min_pixels: int | None = Field(None, ge=1, description="native: minimum image area; null: the processor's")
    max_pixels: int | None = Field(
        None, ge=1, description="native: maximum image area; null: 1,280 visual tokens or the processor's, if smaller"
    )
    max_tiles: int = Field(4, ge=2, le=64, description="tiles: maximum tiles per image, not counting the whole image")

    def question(self, example: Example) -> str:
        """The text of the user's turn: the question and, if they are configured, the instructions of its task."""
        if not self.instructions:
            return example.question
        return question_and_instruction(example, list_classes=self.list_classes, caption_words=self.caption_words)


class LoraSettings(Section):
    """LoRA adapter on the linear layers."""

    rank: int = Field(16, ge=1, le=256, description="rank of the adapter")
    alpha: float = Field(32, gt=0, description="scale of the adapter, divided by its rank")
    targets: Literal["language", "all"] = Field(
        "language",
        description="language: language layers only, synced to the engines as an adapter; all: also the vision tower, "
        "synced as merged weights",
    )


class ModelConfig(Section):
    """The policy model."""

    path: PathText = Field(
        TINY,
        description="'tiny' or 'tiny-start', which ship with the package, a model folder, or a Hugging Face model ID",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="dtype of the computation; trained weights are kept in float32"
    )
    lora: LoraSettings | None = Field(None, description="train a LoRA adapter; null: train all weights")
    freeze_vision: bool = Field(False, description="do not train the vision tower")
    fp32_head: bool = Field(
        False,
        description="compute the output layer in float32 in engine and learner, which brings their log-probs closer "
        "together in bfloat16",
    )
    offload: bool = Field(
        False,
        description="keep the learner's weights, gradients and optimizer states in host memory; every layer is copied "
        "to the GPU when it is computed, and the optimizer steps on the CPU",
    )
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = Field(
        "auto",
        description="attention of the learner's vision tower; auto: torch's flash attention on GPUs, else sdpa; "
        "flash_attention_2 needs the package flash-attn on its nodes",
    )

    @property
    def sends_adapter(self) -> bool:
        """Whether engines get a LoRA adapter, and not model weights with any adapter merged."""
        return self.lora is not None and self.lora.targets == "language"

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if self.freeze_vision and self.lora and self.lora.targets == "all":
            raise ValueError("freeze_vision: expected lora.targets=language, found all, which adapts the vision tower")
        return self


def check_attention(config: ModelConfig) -> None:
    """Raise ConfigError if the package that ``model.attention`` needs is not installed on this machine."""
    if config.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ConfigError(
            "model.attention=flash_attention_2: expected the package flash-attn, found none; install it, or set "
            "model.attention=auto"
        )
