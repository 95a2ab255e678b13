"""Interactive inference: one question about images at a time, with the prompts and image processing of training."""

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
from geovlm_ray.model.answer_format import answer_format
from geovlm_ray.model.families import family_of
from geovlm_ray.model.prompts import MAX_IMAGES, EncodedPrompt, PromptEncoder
from geovlm_ray.report.boxes import PREDICTED_COLOUR, draw_boxes
from geovlm_ray.report.page import fitted
from geovlm_ray.serving.export.merge import generate_greedy, load_for_inference, processor_of
from geovlm_ray.serving.model_ref import ModelRef
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_reader import read_boxes
from geovlm_ray.tasks.answers.class_names import class_names
from geovlm_ray.tasks.answers.grammar import parse_response

ANNOTATED_PIXELS = 1024
"""Longer side of an image annotated with boxes, in pixels."""


@dataclass(frozen=True)
class Answer:
    """A parsed response; ``reasoning`` and ``answer`` are None if it violates the grammar; boxes are in ``frame``."""

    response: str
    reasoning: str | None
    answer: str | None
    boxes: tuple[Box, ...]
    frame: Frame
    seconds: float


class Answerer:
    """A loaded model, on the GPU if one is available; not thread-safe.

    Raises:
        ModelError: the model does not load.
        ConfigError: the frame of its boxes is unknown.
    """

    def __init__(self, ref: ModelRef) -> None:
        self.config = ref.config
        if self.config.data.frame == "dataset":
            raise ConfigError(
                "data.frame: expected the frame of the boxes in the model's answers, auto, shown, percent, permille or "
                "[width, height], found 'dataset'"
            )
        self.encoder = PromptEncoder(processor_of(ref), ref.config.prompt)
        plain = ref.config.prompt.model_copy(update={"instructions": False})
        self.plain_encoder = PromptEncoder(self.encoder.processor, plain)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_for_inference(ref, ref.config.model.dtype).to(device)
        self.format = answer_format(self.config.data, family_of(self.model), self.encoder.resolution)

    def answer(self, images: Sequence[str], question: str, task: str | None = None) -> Answer:
        """Answer a question about images, given by their paths in order, by greedy decoding.

        ``task`` appends the task's instruction to the question if prompts had instructions in training.

        Raises:
            DataError: an image cannot be read, the number of images is out of range, or the question is empty, too
                long or contains an image placeholder.
        """
        if not 1 <= len(images) <= MAX_IMAGES:
            raise DataError(f"expected 1 to {MAX_IMAGES} images, found {len(images)}")
        if not question.strip():
            raise DataError("expected a question, found none")
        start = time.perf_counter()
        example = self.format.of(Example("question", task or "vqa", tuple(images), question.strip(), ""))
        encoder = self.encoder if task else self.plain_encoder
        response = self._complete(encoder.encode(example))
        parsed = parse_response(response) or parse_response(response, "none")
        answer = parsed.answer.strip() if parsed else None
        return Answer(
            response=response,
            reasoning=parsed.think.strip() if parsed and parsed.think is not None else None,
            answer=answer,
            boxes=_boxes(answer or "", task, example.frame),
            frame=example.frame,
            seconds=time.perf_counter() - start,
        )

    def annotate(self, image: str, answer: Answer) -> Image.Image:
        """Draw the boxes of an answer on an image; raises DataError if it cannot be read."""
        return draw_boxes(fitted(load_image(image), ANNOTATED_PIXELS), answer.boxes, answer.frame, PREDICTED_COLOUR)

    def _complete(self, prompt: EncodedPrompt) -> str:
        length, max_length = len(prompt.input_ids), self.config.rollout.max_model_len
        if length >= max_length:
            raise DataError(f"prompt: expected fewer than rollout.max_model_len={max_length} tokens, found {length}")
        ids = generate_greedy(self.model, prompt, min(self.config.rollout.max_tokens, max_length - length))
        return self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=True)


def _boxes(answer: str, task: str | None, frame: Frame) -> tuple[Box, ...]:
    """Parse the boxes of an answer, labelled by words beside them; empty for tasks without boxes."""
    if task and TASKS[task].target_kind not in ("boxes", "grounded"):
        return ()
    read = read_boxes(answer, names=class_names(()), frame=frame)
    pairs = zip(read.boxes, read.labels, strict=True) if read else ()
    return tuple(Box(coords, label) for coords, label in pairs if len(coords) in (4, 5))
