"""How a model is asked: the settings that it carries, and the lines of Python that ask it exactly as in training."""

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

CARRIED = {
    "prompt": None,
    "data": ("frame",),
    "rollout": ("max_tokens", "max_model_len", "temperature"),
    "reward": ("think",),
}
"""Sections, and which of their keys if not all, that say how prompts are written and answers read."""
UNITS = {
    "percent": "percent of the image's width and height",
    "permille": "thousandths of the image's width and height",
}


def carried_settings(config: Config, dtype: str) -> str:
    """The settings that go with a model, as YAML that `load_config` reads; nothing of the machine it was made on."""
    values = config.model_dump(mode="json")
    carried = {
        section: {key: values[section][key] for key in keys or values[section]} for section, keys in CARRIED.items()
    }
    return yaml.safe_dump({"model": {"dtype": dtype}, **carried}, sort_keys=False)


def asking(config: Config, encoder: PromptEncoder, name: str, tasks: Sequence[str]) -> str:
    """A section of Markdown, with Python for transformers and vLLM, about a model in the folder ``name``."""
    longest, window = config.rollout.max_tokens, config.rollout.max_model_len
    shell = shlex.quote(name)
    return "\n\n".join(
        [
            f"Pictures: {_size(encoder.resolution)}. The answer has the form `{_form(config)}`.{_boxes(config)}",
            *_instructions(config, tasks),
            _python(_prompt(config, encoder.resolution)),
            "With transformers (`generation_config.json` says: greedy, and without the special tokens that training "
            "never drew):",
            _python(_transformers(name, longest)),
            "With vLLM:",
            _python(_vllm(name, longest, window, encoder.most_pictures)),
            "Or on the command line of geovlm_ray, which shows 16-bit, SAR and multi-band GeoTIFFs as training did:",
            f"```sh\ngeovlm-ray chat {shell} scene.png\ngeovlm-ray web {shell}\n```",
        ]
    )


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _size(resolution: Resolution) -> str:
    side = resolution.side
    if resolution.mode == "native":
        return (
            f"in their own shape, sides that are multiples of {resolution.factor}, {resolution.min_pixels:,} to "
            f"{resolution.max_pixels:,} pixels"
        )
    square = f"a square of {side} x {side} pixels, bicubic, whatever the image's shape"
    return square if resolution.mode == "fixed" else f"{square}, then up to {resolution.max_tiles} tiles of that size"


def _form(config: Config) -> str:
    answer = "<answer>the answer</answer>"
    return answer if config.reward.think == "none" else f"<think>the reasoning</think>{answer}"


def _boxes(config: Config) -> str:
    frame: Frame | None = config.data.answer_frame
    if frame is None:
        return " Boxes are in the units of the dataset that it was trained on."
    units = UNITS.get(frame.kind, f"pixels of an image of {frame.width:g} x {frame.height:g}")
    return f" Boxes are `[x1, y1, x2, y2]` in {units}."


def _instructions(config: Config, tasks: Sequence[str]) -> list[str]:
    if not config.prompt.instructions:
        return []
    rows = [f"| {task} | {TASKS[task].instruction} |" for task in tasks or TASKS]
    table = "\n".join(["| task | line |", "| --- | --- |", *rows])
    return ["Behind the question, on a line of its own, stands what the task asks for:", table]


def _prompt(config: Config, resolution: Resolution) -> str:
    """Python that leaves ``pictures`` and ``messages``."""
    if resolution.mode == "fixed":
        imports = "from PIL import Image"
        size = f"({resolution.side}, {resolution.side})"
        pictures = f'[Image.open(path).convert("RGB").resize({size}, Image.Resampling.BICUBIC) for path in paths]'
    else:
        imports = (
            "from PIL import Image\n\nfrom geovlm_ray.data.resolution import Resolution, show\n"
            "from geovlm_ray.core.pixels import PixelSettings"
        )
        pictures = (
            f"[\n    Image.fromarray(picture) for path in paths\n"
            f"    for picture in show(path, PixelSettings(), {resolution!r})\n]"
        )
    instruction = f'\n# A task\'s line goes behind it: question += "\\n" + {TASKS["vqa"].instruction!r}'
    system = (
        f'\nmessages.insert(0, {{"role": "system", "content": [{{"type": "text", "text": {config.prompt.system!r}}}]}})'
    )
    return (
        f'{imports}\n\npaths = ["scene.png"]\n'
        f'question = "how many ships are there ?"{instruction if config.prompt.instructions else ""}\n'
        f"pictures = {pictures}\n"
        'content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": question}]\n'
        f'messages = [{{"role": "user", "content": content}}]{system if config.prompt.system else ""}'
    )


def _transformers(name: str, longest: int) -> str:
    return f"""from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained({json.dumps(name)}, dtype="auto")
processor = AutoProcessor.from_pretrained({json.dumps(name)})
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=pictures, return_tensors="pt").to(model.device)
drawn = model.generate(**inputs, max_new_tokens={longest})
print(processor.tokenizer.decode(drawn[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _vllm(name: str, longest: int, window: int, pictures: int) -> str:
    return f"""from transformers import AutoProcessor, GenerationConfig
from vllm import LLM, SamplingParams

llm = LLM({json.dumps(name)}, max_model_len={window}, limit_mm_per_prompt={{"image": {pictures}}})
processor = AutoProcessor.from_pretrained({json.dumps(name)})
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
never = dict.fromkeys(GenerationConfig.from_pretrained({json.dumps(name)}).suppress_tokens, -100.0)
sampling = SamplingParams(temperature=0, max_tokens={longest}, logit_bias=never)
(output,) = llm.generate({{"prompt": text, "multi_modal_data": {{"image": pictures}}}}, sampling)
print(output.outputs[0].text)"""
