"""Usage of an exported model: its settings file and the inference code of its model card, with training prompts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from geovlm_ray.config import Config
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.terminal import inert
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.report.page import render
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.instructions import BOXES, box_format, unit_of

EXPORTED_KEYS: dict[str, Any] = {
    "prompt": True,
    "data": {"frame", "dialect"},
    "rollout": {"max_tokens", "max_model_len", "temperature"},
    "reward": {"think", "confidence"},
}
"""Config sections that define prompts and answer parsing, with the keys to export (True: all)."""


def carried_settings(config: Config, dtype: str) -> str:
    """Prompt and sampling settings as YAML for `load_config`, without paths or other facts about this machine."""
    exported = config.model_dump(mode="json", include=EXPORTED_KEYS)
    return yaml.safe_dump({"model": {"dtype": dtype}, **exported}, sort_keys=False)


def usage_section(
    config: Config, encoder: PromptEncoder, answers: AnswerFormat, name: str, tasks: Sequence[str]
) -> str:
    """The usage section of the model card (Markdown), with code for transformers and vLLM; the folder is ``name``."""
    boxes = box_format(answers.dialect or "brackets", _unit(answers))
    text = render(
        "usage.md",
        config=config,
        boxes=boxes,
        instructions={task: TASKS[task].instruction.replace(BOXES, boxes) for task in tasks or TASKS},
        resolution=encoder.resolution,
        max_images=encoder.max_images_per_prompt,
        folder=json.dumps(name),
        shell=inert(shlex.quote(name)),
        vqa_instruction=TASKS["vqa"].instruction,
        repr=repr,
    )
    return text.rstrip()


def _unit(answers: AnswerFormat) -> str:
    shown = answers.shown
    if shown is not None:
        fixed = unit_of(Frame("pixel", shown.side, shown.side))
        return "in pixels of the resized image" if shown.mode == "native" else fixed
    return unit_of(answers.frame) if answers.frame else "in the units of the training dataset"
