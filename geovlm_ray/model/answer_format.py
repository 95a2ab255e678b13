"""The answer format of a configuration, which may depend on the model family and on the size of images."""

from __future__ import annotations

from pathlib import Path

from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.resolution import Resolution
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.model.families import family_of_folder
from geovlm_ray.model.families.base import ModelFamily
from geovlm_ray.model.loading import load_processor
from geovlm_ray.model.prompts import resolution_of


def answer_format(config: DataConfig, family: ModelFamily, resolution: Resolution) -> AnswerFormat:
    """How boxes are written; ``auto`` in the configuration is what the family was pretrained on."""
    dialect = family.box_dialect if config.dialect == "auto" else config.dialect
    frame = config.frame
    if frame == "auto":
        frame = family.box_frame
    explicit = config.model_copy(update={"dialect": dialect, "frame": frame}).answer_format
    return explicit or AnswerFormat(None, None if dialect == "dataset" else dialect, shown=resolution)


def answer_format_of(config: DataConfig, prompt: PromptConfig, model: Path) -> AnswerFormat:
    """`answer_format` for the model in a folder, which is read only where the format depends on it.

    Raises:
        ModelError: The folder has no model of a known family.
        ConfigError: The image processor of the model would resize images of the configured size.
    """
    explicit = config.answer_format
    return explicit or answer_format(config, family_of_folder(model), resolution_of(load_processor(model), prompt))
