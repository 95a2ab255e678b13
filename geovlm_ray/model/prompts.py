"""Prompt rendering and encoding: chat text, images and model input tensors of an example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import ProcessorMixin

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Example
from geovlm_ray.data.image_cache import ImageCache
from geovlm_ray.data.resolution import Resolution, frames_of, show
from geovlm_ray.model.config import PromptConfig

MAX_CHARS = 1_000_000
"""Longest prompt; a tokenizer takes some 250 bytes of memory for each of its characters."""
MAX_IMAGES = 8
"""Maximum number of images per record."""
DEFAULT_VISUAL_TOKENS = 1280
"""Default maximum of visual tokens per image in native resolution."""


@dataclass(frozen=True)
class EncodedImages:
    """Images as the vision tower reads them: patches [patches, values per patch] and the grid of each, [images, 3]."""

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor


@dataclass(frozen=True)
class EncodedPrompt:
    """Model input tensors of a prompt: token ids [L], and its images in the order of their placeholders."""

    input_ids: torch.Tensor
    images: EncodedImages


class PromptEncoder:
    """Renders and encodes examples for one processor and prompt configuration.

    Images get sizes that the processor does not resize, so that engines and learner see the same pixels.

    Raises:
        ConfigError: the processor would resize images of the configured size.
    """

    def __init__(self, processor: ProcessorMixin, config: PromptConfig, cache: ImageCache | None = None) -> None:
        self.processor = processor
        self.config = config
        self.resolution = resolution_of(processor, config)
        self._cache = cache

    @property
    def max_images_per_prompt(self) -> int:
        """Maximum number of images in a prompt, tiles included."""
        return MAX_IMAGES * (1 + self.config.max_tiles if self.config.resolution == "tiles" else 1)

    def frames(self, example: Example) -> list[Frame]:
        """Size and window of each image that `images` returns, read from the image headers only.

        Raises:
            DataError: an image is missing, or its aspect ratio does not fit the configured resolution.
        """
        return [frame for reference in example.images for frame in frames_of(reference, self.resolution)]

    def images(self, example: Example) -> list[Image.Image]:
        """The images that the model sees: for each image of the example, the resized image, or overview and tiles.

        Raises:
            DataError: an image is missing or cannot be decoded.
        """
        arrays = (self._resized(reference, example.pixels) for reference in example.images)
        return [Image.fromarray(array) for stack in arrays for array in stack]

    def text(self, example: Example) -> str:
        """Chat text up to the start of the completion, with one placeholder per image that the model sees.

        Raises:
            DataError: the question is too long, contains a placeholder or is no Unicode text, or an image to be tiled
                is missing.
        """
        num_images = len(self.frames(example) if self.config.resolution == "tiles" else example.images)
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": self.config.question(example)}]
        messages: list[dict] = [{"role": "user", "content": content}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.config.system}]})
        try:
            text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise DataError(
                f"record {example.id!r:.200}: expected a question that the chat template renders, found: {error}"
            ) from error
        if len(text) > MAX_CHARS:
            expected = f"expected a prompt of at most {MAX_CHARS:,} characters"
            raise DataError(f"record {example.id!r:.200}: {expected}, found {len(text):,}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            broken = error.object[error.start]
            raise DataError(f"record {example.id!r}: expected Unicode text, found {broken!r}") from error
        if (found := text.count(self.processor.image_token)) != num_images:
            raise DataError(
                f"record {example.id!r}: expected {num_images} placeholders {self.processor.image_token}, found "
                f"{found}; the question must not contain any"
            )
        return text

    def length(self, example: Example) -> int:
        """Prompt length in tokens, visual tokens included.

        Raises:
            DataError: as in `frames` and `text`.
        """
        visual = [int(f.width * f.height) // self.resolution.factor**2 for f in self.frames(example)]
        text = len(self.processor.tokenizer(self.text(example))["input_ids"])
        return text + sum(visual) - len(visual)

    def encode(self, example: Example, prefill: str = "") -> EncodedPrompt:
        """Model input tensors of an example's prompt, and of the beginning of the completion if it is given.

        Raises:
            DataError: as in `images` and `text`.
        """
        images = self.images(example)
        encoded = self.processor(text=[self.text(example) + prefill], images=images or None, return_tensors="pt")
        return EncodedPrompt(encoded["input_ids"][0], self._encoded_images(encoded))

    def encode_images(self, references: Sequence[str], pixels: PixelSettings) -> EncodedImages:
        """Images that come after the prompt, such as those that a tool returned.

        Raises:
            DataError: an image is missing or cannot be decoded.
        """
        images = [Image.fromarray(array) for r in references for array in self._resized(r, pixels)]
        return self._encoded_images(self.processor.image_processor(images, return_tensors="pt") if images else {})

    def _encoded_images(self, encoded: Mapping[str, torch.Tensor]) -> EncodedImages:
        if "pixel_values" in encoded:
            return EncodedImages(encoded["pixel_values"], encoded["image_grid_thw"])
        processor = self.processor.image_processor
        patch = 3 * processor.temporal_patch_size * processor.patch_size**2
        return EncodedImages(torch.zeros(0, patch), torch.zeros(0, 3, dtype=torch.long))

    def _resized(self, reference: str, pixels: PixelSettings) -> np.ndarray:
        if self._cache is None:
            return show(reference, pixels, self.resolution)
        recipe = repr((pixels, self.resolution))
        return self._cache.get(reference, recipe, lambda: show(reference, pixels, self.resolution))


def resolution_of(processor: ProcessorMixin, config: PromptConfig) -> Resolution:
    """The configured resolution; raises ConfigError if the processor would resize its images."""
    images = processor.image_processor
    factor = images.patch_size * images.merge_size
    min_area, max_area = images.size["shortest_edge"], images.size["longest_edge"]
    side = max(1, round(config.image_size / factor)) * factor
    low = config.min_pixels or min_area
    high = config.max_pixels or min(max_area, DEFAULT_VISUAL_TOKENS * factor**2)
    if config.resolution != "native" and not min_area <= side**2 <= max_area:
        raise ConfigError(
            f"prompt.image_size: expected {math.ceil(math.sqrt(min_area))} to {math.isqrt(max_area)}, which the "
            f"model's image processor does not resize, found {config.image_size}"
        )
    if config.resolution == "native" and not min_area <= low <= high / 4 <= max_area / 4:
        raise ConfigError(
            f"prompt.min_pixels, prompt.max_pixels: expected at least {min_area} and at most {max_area}, the bounds "
            f"of the model's image processor, and the maximum at least 4 times the minimum; found {low} and {high}"
        )
    return Resolution(config.resolution, side, factor, low, high, config.max_tiles)


def banned_token_ids(processor: ProcessorMixin, vocabulary: int) -> list[int]:
    """Token ids that the policy must never sample: special tokens except end-of-turn, and ids without a token.

    ``vocabulary`` is the width of the model's output layer, which may exceed the tokenizer's vocabulary.
    """
    tokenizer = processor.tokenizer
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.discard(tokenizer.eos_token_id)
    return sorted(special) + list(range(len(tokenizer), vocabulary))


def pad_right(rows: Sequence[torch.Tensor], value: int = 0) -> torch.Tensor:
    """Stack 1-D tensors of unequal length into [rows, longest], padded on the right with ``value``."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
