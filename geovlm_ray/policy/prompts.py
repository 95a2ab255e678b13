"""From an example to what the model reads: the chat text, its images, and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import ProcessorMixin

from geovlm_ray.data.images import load_image
from geovlm_ray.policy.config import PromptConfig
from geovlm_ray.schema import Example
from geovlm_ray.tasks import TASKS


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as tensors: ids and modality of L tokens, and the patches of its images.

    ``input_ids`` and ``mm_token_type_ids`` are [L]; ``pixel_values`` is [patches, values of a patch];
    ``image_grid_thw`` is [images, 3].
    """

    input_ids: torch.Tensor
    mm_token_type_ids: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


class PromptEncoder:
    """Renders and encodes examples with one processor and one configuration."""

    def __init__(self, processor: ProcessorMixin, config: PromptConfig, root: Path | None = None) -> None:
        self.processor = processor
        self.config = config
        self.root = root

    def images(self, example: Example) -> list[Image.Image]:
        """The example's images in the size that the model is shown.

        Raises:
            DataError: an image is absent or does not decode.
        """
        return [load_image(reference, self.config.image_size, self.root) for reference in example.images]

    def text(self, example: Example) -> str:
        """The chat text up to where the completion begins, one placeholder an image."""
        question = example.question
        if self.config.instructions:
            question = f"{question}\n{TASKS[example.task].instruction}"
        content = [{"type": "image"} for _ in example.images] + [{"type": "text", "text": question}]
        messages: list[dict] = [{"role": "user", "content": content}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.config.system}]})
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def length(self, example: Example) -> int:
        """Tokens of an example's prompt, its images included."""
        patch = self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
        visual = round(self.config.image_size / patch) ** 2
        text = len(self.processor.tokenizer(self.text(example))["input_ids"])
        return text + len(example.images) * (visual - 1)

    def encode(self, example: Example) -> EncodedPrompt:
        """The tensors of an example's prompt."""
        encoded = self.processor(text=[self.text(example)], images=self.images(example), return_tensors="pt")
        return EncodedPrompt(
            input_ids=encoded["input_ids"][0],
            mm_token_type_ids=encoded["mm_token_type_ids"][0],
            pixel_values=encoded["pixel_values"],
            image_grid_thw=encoded["image_grid_thw"],
        )


def banned_token_ids(processor: ProcessorMixin, vocabulary: int) -> list[int]:
    """Ids that a policy must never sample: every special token but the end of the turn, and ids without a token.

    ``vocabulary`` is the width of the model's output, which may exceed the tokenizer's.
    """
    tokenizer = processor.tokenizer
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.discard(tokenizer.eos_token_id)
    return sorted(special) + list(range(len(tokenizer), vocabulary))


def pad_right(rows: Sequence[torch.Tensor], value: int = 0) -> torch.Tensor:
    """Stack 1-D tensors of unequal length into [rows, longest], filled on the right."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
