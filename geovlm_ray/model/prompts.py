"""From an example to what the model reads: the chat text, its images, and their tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Example
from geovlm_ray.data.image_cache import ImageCache
from geovlm_ray.data.resolution import Resolution, frames_of, show
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.tasks import TASKS

MAX_IMAGES = 8
"""Images of one record that engines are set up for."""
VISUAL_TOKENS = 1280
"""Default budget of a picture in native size."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as tensors: ids and modality of L tokens, and the patches of its images.

    ``input_ids`` and ``mm_token_type_ids`` are [L]; ``pixel_values`` is [patches, values of a patch];
    ``image_grid_thw`` is [pictures, 3].
    """

    input_ids: torch.Tensor
    mm_token_type_ids: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


class PromptEncoder:
    """Renders and encodes examples with one processor and one configuration.

    Pictures come in sizes that the processor leaves as they are, so that every engine and the learner see the same.

    Raises:
        ConfigError: the processor would change pictures of the configured size.
    """

    def __init__(self, processor: ProcessorMixin, config: PromptConfig, cache: ImageCache | None = None) -> None:
        self.processor = processor
        self.config = config
        self.resolution = _resolution(processor, config)
        self._cache = cache

    @property
    def most_pictures(self) -> int:
        """The largest number of pictures in a prompt."""
        return MAX_IMAGES * (1 + self.config.max_tiles if self.config.resolution == "tiles" else 1)

    def frames(self, example: Example) -> list[Frame]:
        """Size and window of the pictures that `images` returns, from the images' headers alone.

        Raises:
            DataError: an image is absent, or cannot be shown at this resolution.
        """
        return [frame for reference in example.images for frame in frames_of(reference, self.resolution)]

    def images(self, example: Example) -> list[Image.Image]:
        """The pictures that the model is shown: one for each of the example's images, or the whole and its tiles.

        Raises:
            DataError: an image is absent or does not decode.
        """
        shown = (self._shown(reference, example.pixels) for reference in example.images)
        return [Image.fromarray(picture) for pictures in shown for picture in pictures]

    def text(self, example: Example) -> str:
        """The chat text up to where the completion begins, one placeholder a picture.

        Raises:
            DataError: the question holds a placeholder itself, or a tiled image is absent.
        """
        pictures = len(self.frames(example) if self.config.resolution == "tiles" else example.images)
        question = example.question
        if self.config.instructions:
            question = f"{question}\n{TASKS[example.task].instruction}"
        content = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
        messages: list[dict] = [{"role": "user", "content": content}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.config.system}]})
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if (found := text.count(self.processor.image_token)) != pictures:
            raise DataError(
                f"record {example.id!r}: expected {pictures} placeholders {self.processor.image_token}, found {found}; "
                "the question must hold none"
            )
        return text

    def length(self, example: Example) -> int:
        """Tokens of an example's prompt, its pictures included.

        Raises:
            DataError: as `frames` and `text`.
        """
        visual = [int(f.width * f.height) // self.resolution.factor**2 for f in self.frames(example)]
        text = len(self.processor.tokenizer(self.text(example))["input_ids"])
        return text + sum(visual) - len(visual)

    def encode(self, example: Example) -> EncodedPrompt:
        """The tensors of an example's prompt."""
        pictures = self.images(example)
        encoded = self.processor(text=[self.text(example)], images=pictures or None, return_tensors="pt")
        images = self.processor.image_processor
        patch = 3 * images.temporal_patch_size * images.patch_size**2
        return EncodedPrompt(
            input_ids=encoded["input_ids"][0],
            mm_token_type_ids=encoded["mm_token_type_ids"][0],
            pixel_values=encoded["pixel_values"] if pictures else torch.zeros(0, patch),
            image_grid_thw=encoded["image_grid_thw"] if pictures else torch.zeros(0, 3, dtype=torch.long),
        )

    def _shown(self, reference: str, pixels: PixelSettings) -> np.ndarray:
        if self._cache is None:
            return show(reference, pixels, self.resolution)
        recipe = repr((pixels, self.resolution))
        return self._cache.get(reference, recipe, lambda: show(reference, pixels, self.resolution))


def _resolution(processor: ProcessorMixin, config: PromptConfig) -> Resolution:
    """The configured resolution, in which all pictures are within what the processor leaves as it is."""
    images = processor.image_processor
    factor = images.patch_size * images.merge_size
    least, most = images.size["shortest_edge"], images.size["longest_edge"]
    side = max(1, round(config.image_size / factor)) * factor
    low = config.min_pixels or least
    high = config.max_pixels or min(most, VISUAL_TOKENS * factor**2)
    if config.resolution != "native" and not least <= side**2 <= most:
        raise ConfigError(
            f"prompt.image_size: expected {math.ceil(math.sqrt(least))} to {math.isqrt(most)}, which the model's image "
            f"processor does not resize, found {config.image_size}"
        )
    if config.resolution == "native" and not least <= low <= high / 4 <= most / 4:
        raise ConfigError(
            f"prompt.min_pixels, prompt.max_pixels: expected the one at least {least}, the other at most {most}, which "
            f"are the bounds of the model's image processor, and 4 times the one; found {low} and {high}"
        )
    return Resolution(config.resolution, side, factor, low, high, config.max_tiles)


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
