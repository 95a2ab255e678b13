"""Training batches: records encoded and packed into rows, prefetched by reader processes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader, Dataset, get_worker_info

from geovlm_ray.core.errors import DataError, RunError, UserError
from geovlm_ray.core.interrupts import children_ignore_sigint
from geovlm_ray.core.schema import Example, Prompt, Rotated
from geovlm_ray.data.answers import Reasoning, response_text
from geovlm_ray.data.bad_records import BadRecord
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow

PREFETCH_BATCHES = 2
"""Batches that each reader process prefetches."""

READ_LIMIT_S = 1800
"""Seconds without a batch after which reading has failed: what a reader cannot send is lost without a word."""
MAX_TMPDIR_CHARS = 70
"""Longest temporary folder for the sockets of reader processes, whose paths have at most 107 characters."""

Encoded = tuple[EncodedPrompt, Completion]


@dataclass(frozen=True)
class Batch:
    """The records of one optimizer step, packed into rows; ``ids`` are the record ids.

    ``bad`` are records that were set aside while the batch was made.
    """

    rows: list[GroupRow]
    ids: list[str]
    bad: tuple[BadRecord, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of prompts, images and responses."""
        return sum(len(row.input_ids) + len(row.groups) for row in self.rows)

    @property
    def response_tokens(self) -> int:
        """Response tokens, over which the loss is averaged."""
        return sum(len(row.targets) for row in self.rows)


class SftCollator:
    """Encodes examples with their reference responses and packs them into rows of at most ``pack_tokens`` tokens.

    ``rotated`` is the reward's setting for angles; ``choice`` selects one of several reference captions.
    """

    def __init__(
        self, encoder: PromptEncoder, reasoning: Reasoning, pack_tokens: int, *, rotated: Rotated = "auto"
    ) -> None:
        self.encoder = encoder
        self.reasoning = reasoning
        self.pack_tokens = pack_tokens
        self.rotated = rotated

    def response(self, example: Example, choice: int = 0) -> list[int]:
        """Token ids of the reference response and end-of-turn; special tokens in its text are encoded as plain text.

        Raises:
            DataError: the record has no usable target.
        """
        tokenizer = self.encoder.processor.tokenizer
        text = response_text(example, self.reasoning, choice, rotated=self.rotated)
        return [*tokenizer(text, split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]

    def check(self, example: Example) -> None:
        """Raise DataError if a record cannot be trained on."""
        with _record_in_errors(example):
            _need_images(example)
            self.encoder.images(example)
            self._check_length(self.encoder.length(example) + len(self.response(example)))

    def batch(self, prompts: Sequence[Prompt], set_aside: Callable[[Example, str], None] | None = None) -> Batch:
        """Encode examples and pack them into rows.

        Those that cannot be encoded are left out, and ``set_aside`` is called with each and the reason; without it,
        raises DataError as `encode` does.
        """
        encoded = []
        for prompt in prompts:
            try:
                encoded.append((prompt, self.encode(prompt)))
            except DataError as error:
                if set_aside is None:
                    raise
                set_aside(prompt.example, str(error))
        return self.pack(encoded)

    def pack(self, encoded: Sequence[tuple[Prompt, Encoded]], bad: Sequence[BadRecord] = ()) -> Batch:
        """Pack encoded examples into rows."""
        rows = pack_rows([sequence for _, sequence in encoded], self.pack_tokens)
        return Batch(rows, [prompt.example.id for prompt, _ in encoded], tuple(bad))

    def encode(self, sampled: Prompt) -> Encoded:
        """Encode an example and its reference response; ``group_id`` selects the caption.

        Raises:
            DataError: the record has no usable target, has a missing or broken image, or does not fit into a row.
        """
        with _record_in_errors(sampled.example):
            _need_images(sampled.example)
            prompt = self.encoder.encode(sampled.example)
            response = Completion(self.response(sampled.example, sampled.group_id))
            self._check_length(len(prompt.input_ids) + len(response))
        return prompt, response

    def _check_length(self, length: int) -> None:
        if length > self.pack_tokens:
            raise DataError(
                f"expected at most sft.pack_tokens={self.pack_tokens} tokens of prompt, images and response, "
                f"found {length}"
            )


@contextmanager
def _record_in_errors(example: Example) -> Iterator[None]:
    """Prefix DataError messages with the record id."""
    prefix = f"record {example.id!r}"
    try:
        yield
    except DataError as error:
        if str(error).startswith(prefix):
            raise
        raise DataError(f"{prefix}: {error}") from error


def _need_images(example: Example) -> None:
    if not example.images:
        raise DataError("expected at least one image, found none")


def pack_rows(sequences: Sequence[Encoded], budget: int) -> list[GroupRow]:
    """Pack prompts with their responses into rows of at most ``budget`` tokens (first-fit decreasing)."""
    rows: list[list[Encoded]] = []
    remaining: list[int] = []
    for sequence in sorted(sequences, key=_length, reverse=True):
        length = _length(sequence)
        index = next((i for i, free in enumerate(remaining) if free >= length), None)
        if index is None:
            rows.append([])
            remaining.append(budget)
            index = len(rows) - 1
        rows[index].append(sequence)
        remaining[index] -= length
    return [GroupRow.of([prompt for prompt, _ in row], [[response] for _, response in row]) for row in rows]


def _length(sequence: Encoded) -> int:
    prompt, response = sequence
    return len(prompt.input_ids) + len(response)


class _StepBatches(Dataset):
    """One batch per step; a UserError is returned, so that it reaches the main process with its type and message."""

    def __init__(self, sampler: PromptSampler, collator: SftCollator, shard: tuple[int, int]) -> None:
        self.sampler = sampler
        self.collator = collator
        self.shard = shard

    def __getitem__(self, step: int) -> Batch | UserError:
        bad = self.sampler.stream.bad
        known = len(bad)
        try:
            encoded = [self._encoded(prompt) for prompt in self.sampler.batch(step, self.shard)]
            return self.collator.pack(encoded, tuple(bad)[known:])
        except UserError as error:
            return error

    def _encoded(self, prompt: Prompt) -> tuple[Prompt, Encoded]:
        """The prompt, or the first in its place whose record can be encoded."""
        while True:
            try:
                return prompt, self.collator.encode(prompt)
            except DataError as error:
                prompt = self.sampler.set_aside(prompt, str(error))


def read_batches(
    sampler: PromptSampler,
    collator: SftCollator,
    start: int,
    end: int,
    readers: int,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of steps ``start`` to ``end - 1`` (counted from 0) in order, prefetched by ``readers`` processes.

    ``shard`` (i, n): every n-th record of each batch, from the i-th on. Records that cannot be trained on are set aside
    in the sampler's stream, and replaced by others of their task.

    Raises:
        DataError: too many records are bad.
        RunError: a reader process died, or sent nothing for `READ_LIMIT_S`.
    """
    if readers:
        _keep_socket_paths_short()
    loader = DataLoader(
        _StepBatches(sampler, collator, shard),
        batch_size=None,
        sampler=range(start, end),
        num_workers=readers,
        prefetch_factor=PREFETCH_BATCHES if readers else None,
        worker_init_fn=_start_reader,
        timeout=READ_LIMIT_S if readers else 0,
    )
    with children_ignore_sigint():
        batches = iter(loader)
    try:
        while (batch := _next(batches)) is not None:
            if isinstance(batch, UserError):
                raise batch
            sampler.stream.bad.add(batch.bad)
            yield batch
    finally:
        # Readers stop when the last reference to the iterator is gone; an error's traceback would keep one.
        del batches


def _keep_socket_paths_short() -> None:
    """Put the sockets by which processes share tensors into /tmp if the temporary folder has a long name."""
    folder = tempfile.gettempdir()
    if len(folder) > MAX_TMPDIR_CHARS:
        tempfile.tempdir = "/tmp"
        try:
            get_temp_dir()
        finally:
            tempfile.tempdir = folder


def _start_reader(worker: int) -> None:
    """Prepare a reader process.

    The main process records bad records. A reader ends without a traceback if its parent has ended while it took over a
    batch.
    """
    info: Any = get_worker_info()
    info.dataset.sampler.stream.bad.file = None
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError):
            report(kind, error, trace)

    sys.excepthook = hook


def _next(batches: Iterator[Batch | UserError]) -> Batch | UserError | None:
    try:
        return next(batches, None)
    except RuntimeError as error:
        raise RunError(f"a reader process failed: {' '.join(str(error).split())}") from error
