"""Model families by the ``model_type`` of config.json; code outside the package may add to `FAMILIES`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from geovlm_ray.core.errors import DataError, ModelError
from geovlm_ray.core.files import read_object
from geovlm_ray.model.families.base import ModelFamily
from geovlm_ray.model.families.qwen2_5_vl import Qwen25VL
from geovlm_ray.model.families.qwen2_vl import Qwen2VL
from geovlm_ray.model.families.qwen3_5 import Qwen35
from geovlm_ray.model.families.qwen3_vl import Qwen3VL
from geovlm_ray.model.families.qwen3_vl_moe import Qwen3VLMoe

FAMILIES: dict[str, ModelFamily] = {
    family.model_type: family for family in (Qwen25VL(), Qwen2VL(), Qwen3VL(), Qwen3VLMoe(), Qwen35())
}


def family_of_folder(folder: Path) -> ModelFamily:
    """The family of a model folder.

    Raises:
        ModelError: it has no readable config.json, or its ``model_type`` has no family.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"model {folder}: expected a config.json in the folder, found none")
    try:
        model_type = read_object(config).get("model_type")
    except DataError as error:
        raise ModelError(f"model {error}") from error
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise ModelError(
            f"model {folder}: expected a vision-language model of type {known}; a new one takes one file in "
            f"geovlm_ray/model/families (CONTRIBUTING.md), found model_type {model_type!r}"
        )
    family = FAMILIES[model_type]
    if not isinstance(family, ModelFamily) or family.model_type != model_type:
        raise ModelError(
            f"FAMILIES[{model_type!r}]: expected an instance of ModelFamily with this model_type, found {family!r}"
        )
    return family


def family_of(model: nn.Module) -> ModelFamily:
    """The family of a loaded model, with or without a PEFT wrapper."""
    return FAMILIES[base_model(model).config.model_type]


def base_model(model: nn.Module) -> nn.Module:
    """The model of transformers without the PEFT wrapper; its layers keep the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
