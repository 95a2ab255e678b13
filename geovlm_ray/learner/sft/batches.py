"""From records to packed rows: what a training step reads, made ahead by reader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from geovlm_ray.core.errors import DataError, RunError, UserError
from geovlm_ray.core.interrupts import children_ignore_sigint
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.answers import Reasoning, response_text
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.model.forward import Pack
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder

AHEAD = 2
"""Batches that each reader keeps ready."""

Encoded = tuple[EncodedPrompt, list[int]]


@dataclass(frozen=True)
class Batch:
    """The records of one optimizer step, in rows; ``ids`` are the records' names."""

    packs: list[Pack]
    ids: list[str]

    @property
    def tokens(self) -> int:
        """Tokens of prompts, images and responses."""
        return sum(len(pack.input_ids) for pack in self.packs)

    @property
    def response_tokens(self) -> int:
        """Tokens that the loss is a mean of."""
        return sum(int(pack.response.sum()) for pack in self.packs)


class Teacher:
    """Pairs examples with their ideal responses, whose boxes keep their angle where ``rotated``, and packs them.

    ``choice`` says which of several reference captions is taken.
    """

    def __init__(
        self, encoder: PromptEncoder, reasoning: Reasoning, pack_tokens: int, *, rotated: bool = False
    ) -> None:
        self.encoder = encoder
        self.reasoning = reasoning
        self.pack_tokens = pack_tokens
        self.rotated = rotated

    def response(self, example: Example, choice: int = 0) -> list[int]:
        """Token ids of the ideal response and its end; special tokens that a record names are read as plain text.

        Raises:
            DataError: the record has no usable target.
        """
        tokenizer = self.encoder.processor.tokenizer
        text = response_text(example, self.reasoning, choice, rotated=self.rotated)
        return [*tokenizer(text, split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]

    def check(self, example: Example, choice: int = 0) -> None:
        """Raise DataError where a record cannot be trained on, as far as that shows without its pixels."""
        with _named(example):
            _need_images(example)
            self._check_length(self.encoder.length(example) + len(self.response(example, choice)))

    def batch(self, prompts: Sequence[Prompt]) -> Batch:
        """Encode and pack examples; the number of a draw chooses its caption.

        Raises:
            DataError: a record has no usable target, an image that is absent or broken, or does not fit a row.
        """
        encoded = [self._encode(p.example, p.group_id) for p in prompts]
        return Batch(pack(encoded, self.pack_tokens), [p.example.id for p in prompts])

    def _encode(self, example: Example, choice: int) -> Encoded:
        with _named(example):
            _need_images(example)
            prompt, response = self.encoder.encode(example), self.response(example, choice)
            self._check_length(len(prompt.input_ids) + len(response))
        return prompt, response

    def _check_length(self, length: int) -> None:
        if length > self.pack_tokens:
            raise DataError(
                f"its {length} tokens of prompt, images and response exceed sft.pack_tokens={self.pack_tokens}"
            )


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Errors about a record begin with its name."""
    name = f"record {example.id!r}"
    try:
        yield
    except DataError as error:
        if str(error).startswith(name):
            raise
        raise DataError(f"{name}: {error}") from error


def _need_images(example: Example) -> None:
    if not example.images:
        raise DataError("expected at least one image, found none")


def pack(sequences: Sequence[Encoded], budget: int) -> list[Pack]:
    """Fill rows of at most ``budget`` tokens: longest first, each into the first row that has room for it."""
    rows: list[list[Encoded]] = []
    room: list[int] = []
    for sequence in sorted(sequences, key=lambda s: len(s[0].input_ids) + len(s[1]), reverse=True):
        length = len(sequence[0].input_ids) + len(sequence[1])
        place = next((i for i, left in enumerate(room) if left >= length), None)
        if place is None:
            rows.append([])
            room.append(budget)
            place = len(rows) - 1
        rows[place].append(sequence)
        room[place] -= length
    return [Pack.of(row) for row in rows]


class _Steps(Dataset):
    """The batch of every step, or what was wrong with it: an error keeps its type and text on its way home."""

    def __init__(self, sampler: PromptSampler, teacher: Teacher) -> None:
        self.sampler = sampler
        self.teacher = teacher

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.teacher.batch(self.sampler.batch(step))
        except UserError as error:
            return error


def read_batches(sampler: PromptSampler, teacher: Teacher, start: int, end: int, readers: int) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``end`` (counted from 0) in order, made ahead by ``readers`` processes.

    Raises:
        UserError: a record cannot be trained on, or a reader has died.
    """
    loader = DataLoader(
        _Steps(sampler, teacher),
        batch_size=None,
        sampler=range(start, end),
        num_workers=readers,
        prefetch_factor=AHEAD if readers else None,
    )
    with children_ignore_sigint():
        batches = iter(loader)
    try:
        while (batch := _next(batches)) is not None:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        # The readers end with the last reference; an error's traceback would keep them.
        del batches


def _next(batches: Iterator[Batch | UserError]) -> Batch | UserError | None:
    try:
        return next(batches, None)
    except RuntimeError as error:
        raise RunError(f"a reader process failed: {' '.join(str(error).split())}") from error
