"""Usage of an exported model: its settings file and the inference code of its model card, with training prompts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import yaml

from geovlm_ray.config import Config
from geovlm_ray.core.geometry import Frame
from geovlm_ray.data.resolution import Resolution
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.tasks import TASKS

EXPORTED_KEYS = {
    "prompt": None,
    "data": ("frame",),
    "rollout": ("max_tokens", "max_model_len", "temperature"),
    "reward": ("think",),
}
"""Config sections that define prompts and answer parsing, with the keys to export (None: all)."""
UNITS = {
    "percent": "percent of the image's width and height",
    "permille": "thousandths of the image's width and height",
}


def carried_settings(config: Config, dtype: str) -> str:
    """Prompt and sampling settings as YAML for `load_config`, without paths or other facts about this machine."""
    values = config.model_dump(mode="json")
    exported = {
        section: {key: values[section][key] for key in keys or values[section]}
        for section, keys in EXPORTED_KEYS.items()
    }
    return yaml.safe_dump({"model": {"dtype": dtype}, **exported}, sort_keys=False)


def usage_section(config: Config, encoder: PromptEncoder, name: str, tasks: Sequence[str]) -> str:
    """The usage section of the model card (Markdown), with code for transformers and vLLM; the folder is ``name``."""
    max_tokens, max_model_len = config.rollout.max_tokens, config.rollout.max_model_len
    shell = shlex.quote(name)
    return "\n\n".join(
        [
            f"Image size: {_size(encoder.resolution)}. Response format: `{_response_format(config)}`.{_boxes(config)}",
            *_instructions(config, tasks),
            _python(_prompt(config, encoder.resolution)),
            "With transformers (`generation_config.json` sets greedy decoding and suppresses the special tokens banned "
            "in training):",
            _python(_transformers(name, max_tokens)),
            "With vLLM:",
            _python(_vllm(name, max_tokens, max_model_len, encoder.max_images_per_prompt)),
            "On the geovlm_ray command line, which preprocesses 16-bit, SAR and multi-band GeoTIFFs as in training:",
            f"```sh\ngeovlm-ray chat {shell} scene.png\ngeovlm-ray web {shell}\n```",
        ]
    )


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _size(resolution: Resolution) -> str:
    side = resolution.side
    if resolution.mode == "native":
        return (
            f"aspect ratio preserved, sides rounded to multiples of {resolution.factor}, {resolution.min_pixels:,} to "
            f"{resolution.max_pixels:,} pixels"
        )
    square = f"{side} x {side} pixels, bicubic, aspect ratio not preserved"
    return square if resolution.mode == "fixed" else f"{square}, then up to {resolution.max_tiles} tiles of that size"


def _response_format(config: Config) -> str:
    answer = "<answer>the answer</answer>"
    return answer if config.reward.think == "none" else f"<think>the reasoning</think>{answer}"


def _boxes(config: Config) -> str:
    frame: Frame | None = config.data.answer_frame
    if frame is None:
        return " Boxes are in the coordinate system of the training dataset."
    units = UNITS.get(frame.kind, f"pixels of an image of {frame.width:g} x {frame.height:g}")
    return f" Boxes are `[x1, y1, x2, y2]` in {units}."


def _instructions(config: Config, tasks: Sequence[str]) -> list[str]:
    if not config.prompt.instructions:
        return []
    rows = [f"| {task} | {TASKS[task].instruction} |" for task in tasks or TASKS]
    table = "\n".join(["| task | instruction |", "| --- | --- |", *rows])
    return ["Task instructions, appended to the question on a new line:", table]


def _prompt(config: Config, resolution: Resolution) -> str:
    """Python that defines ``images`` and ``messages``."""
    if resolution.mode == "fixed":
        imports = "from PIL import Image"
        size = f"({resolution.side}, {resolution.side})"
        images = f'[Image.open(path).convert("RGB").resize({size}, Image.Resampling.BICUBIC) for path in paths]'
    else:
        imports = (
            "from PIL import Image\n\nfrom geovlm_ray.data.resolution import Resolution, show\n"
            "from geovlm_ray.core.pixels import PixelSettings"
        )
        images = (
            f"[\n    Image.fromarray(image) for path in paths\n"
            f"    for image in show(path, PixelSettings(), {resolution!r})\n]"
        )
    instruction = f'\n# Task instruction: question += "\\n" + {TASKS["vqa"].instruction!r}'
    system = (
        f'\nmessages.insert(0, {{"role": "system", "content": [{{"type": "text", "text": {config.prompt.system!r}}}]}})'
    )
    return (
        f'{imports}\n\npaths = ["scene.png"]\n'
        f'question = "how many ships are there ?"{instruction if config.prompt.instructions else ""}\n'
        f"images = {images}\n"
        'content = [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]\n'
        f'messages = [{{"role": "user", "content": content}}]{system if config.prompt.system else ""}'
    )


def _transformers(name: str, max_tokens: int) -> str:
    return f"""from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained({json.dumps(name)}, dtype="auto")
processor = AutoProcessor.from_pretrained({json.dumps(name)})
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=images, return_tensors="pt").to(model.device)
output = model.generate(**inputs, max_new_tokens={max_tokens})
print(processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _vllm(name: str, max_tokens: int, max_model_len: int, max_images: int) -> str:
    return f"""from transformers import AutoProcessor, GenerationConfig
from vllm import LLM, SamplingParams

llm = LLM({json.dumps(name)}, max_model_len={max_model_len}, limit_mm_per_prompt={{"image": {max_images}}})
processor = AutoProcessor.from_pretrained({json.dumps(name)})
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
banned = dict.fromkeys(GenerationConfig.from_pretrained({json.dumps(name)}).suppress_tokens, -100.0)
sampling = SamplingParams(temperature=0, max_tokens={max_tokens}, logit_bias=banned)
(output,) = llm.generate({{"prompt": text, "multi_modal_data": {{"image": images}}}}, sampling)
print(output.outputs[0].text)"""
