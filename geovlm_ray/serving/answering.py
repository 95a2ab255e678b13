"""One model that answers one question about images at a time, shown them exactly as in training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.images import load_image
from geovlm_ray.model.prompts import MAX_IMAGES, EncodedPrompt, PromptEncoder
from geovlm_ray.report.boxes import PREDICTED_COLOUR, draw_boxes
from geovlm_ray.report.page import fitted
from geovlm_ray.serving.export.merge import generate_greedy, load_located, processor_of
from geovlm_ray.serving.model_ref import ModelRef
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes
from geovlm_ray.tasks.grammar import parse_response

PICTURE_PIXELS = 1024
"""Longer side of a picture with boxes."""
DIALECTS = ("json", "tagged", "geochat", "brackets")
"""In the order in which an answer is tried; the first ones name what their boxes show."""


@dataclass(frozen=True)
class Answer:
    """What a model says: the whole response, its parts, None where it breaks the grammar, and the boxes in it."""

    response: str
    reasoning: str | None
    answer: str | None
    boxes: tuple[Box, ...]
    seconds: float


class Answerer:
    """A model in memory, on the GPU where there is one; not to be called from two threads at once.

    ``frame`` is that of its boxes.

    Raises:
        ModelError: it does not load.
        ConfigError: the units of its boxes are unknown.
    """

    def __init__(self, ref: ModelRef) -> None:
        self.config = ref.config
        frame = ref.config.data.answer_frame
        if frame is None:
            raise ConfigError(
                "data.frame: expected the units in which the model answers with boxes, percent, permille or "
                "[width, height], found 'dataset'"
            )
        self.frame: Frame = frame
        processor = processor_of(ref)
        self.encoder = PromptEncoder(processor, ref.config.prompt)
        plain = ref.config.prompt.model_copy(update={"instructions": False})
        self.plain_encoder = PromptEncoder(processor, plain)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_located(ref, ref.config.model.dtype).to(device)

    def answer(self, images: Sequence[str], question: str, task: str | None = None) -> Answer:
        """Answer a question greedily; with a ``task`` its answer format is asked for, where it was in training.

        Raises:
            DataError: an image cannot be shown, or there are none or too many, or the question is empty, too long or
                holds a placeholder of images.
        """
        begun = time.perf_counter()
        example = _example(images, question, task)
        encoder = self.encoder if task else self.plain_encoder
        response = self._complete(encoder.encode(example))
        parsed = parse_response(response) or parse_response(response, "none")
        said = parsed.answer.strip() if parsed else None
        return Answer(
            response=response,
            reasoning=parsed.think.strip() if parsed and parsed.think is not None else None,
            answer=said,
            boxes=_boxes(said or "", task),
            seconds=time.perf_counter() - begun,
        )

    def picture(self, image: str, boxes: Sequence[Box]) -> Image.Image:
        """An image with the boxes of an answer.

        Raises:
            DataError: the image cannot be read.
        """
        return draw_boxes(fitted(load_image(image), PICTURE_PIXELS), boxes, self.frame, PREDICTED_COLOUR)

    def _complete(self, prompt: EncodedPrompt) -> str:
        length, longest = len(prompt.input_ids), self.config.rollout.max_model_len
        if length >= longest:
            raise DataError(f"prompt: expected less than rollout.max_model_len={longest} tokens, found {length}")
        ids = generate_greedy(self.model, prompt, min(self.config.rollout.max_tokens, longest - length))
        return self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=True)


def _example(images: Sequence[str], question: str, task: str | None) -> Example:
    if not 1 <= len(images) <= MAX_IMAGES:
        raise DataError(f"expected 1 to {MAX_IMAGES} images, found {len(images)}")
    if not question.strip():
        raise DataError("expected a question, found none")
    return Example("question", task or "vqa", tuple(images), question.strip(), "")


def _boxes(answer: str, task: str | None) -> tuple[Box, ...]:
    """The boxes in an answer; none for a task whose answers have none."""
    if task and TASKS[task].target_kind not in ("boxes", "grounded"):
        return ()
    found = [f for f in (parse_boxes(answer, dialect) for dialect in DIALECTS) if f and f.boxes]
    pairs = zip(found[0].boxes, found[0].labels, strict=True) if found else ()
    return tuple(Box(coords, label) for coords, label in pairs if len(coords) in (4, 5))
