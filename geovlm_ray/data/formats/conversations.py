"""Conversations in LLaVA's format: ``[{"from": "human", "value"}, {"from": "gpt", "value"}]``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Unit, field_of, image_reference, short_repr
from geovlm_ray.data.table import Row

QUESTION_ROLES = ("human", "user")
ANSWER_ROLES = ("gpt", "assistant")


def conversation_rows(
    unit: Unit,
    conversation: Any,
    id: str,
    example: Callable[[str, str, tuple[str]], Example],
    extra: Mapping[str, Any] | None = None,
) -> tuple[list[Row], list[Unit]]:
    """One record per question and answer, made by ``example(id, question, (answer,))``, and the bad ones as units.

    The turns may also be JSON text, or an object with a list of speakers and a list of texts. The first question has
    the given id, later ones ``<id>-<number>``. The first record has the ``extra`` fields.

    Raises:
        DataError: there are no turns, or the only question is bad.
    """
    rows: list[Row] = []
    bad = []
    pairs = list(_pairs(_turns(conversation)))
    for number, pair in enumerate(pairs, 1):
        try:
            question, answer = _question_and_answer(pair)
            made = example(id if number == 1 else f"{id}-{number}", question, (answer,))
        except DataError as error:
            if len(pairs) == 1:
                raise
            bad.append(replace(unit, value=pair, problem=f"turn {number}: {error}"))
        else:
            rows.append(Row(made, extra={} if rows or extra is None else extra))
    return rows, bad


def without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A record without some of its keys."""
    return {key: value for key, value in record.items() if key not in keys}


def record_id(record: Mapping[str, Any], unit: Unit, *keys: str) -> str:
    """A record's id: the value of the first key that it has, else ``<file>:<number>`` of its unit.

    Raises:
        DataError: the id is neither a string nor an integer.
    """
    for key in keys:
        if record.get(key) is not None:
            return str(field_of(record, key, (str, int)))
    return f"{unit.file}:{unit.number}"


def images_of(record: Mapping[str, Any], key: str = "image") -> tuple[str, ...]:
    """A record's image paths, from a string or a list, in order and with duplicates.

    Raises:
        DataError: there is none, or one is not a path below the image root.
    """
    value = field_of(record, key, (str, list))
    images = [value] if isinstance(value, str) else value
    if not images:
        raise DataError(f"{key}: expected at least one path, found none")
    return tuple(map(image_reference, images))


def _turns(conversation: Any) -> list[Any]:
    turns = conversation
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise DataError(f"conversations: expected turns as JSON, found {short_repr(turns)}: {error}") from error
    if isinstance(turns, dict) and isinstance(turns.get("from"), list) and isinstance(turns.get("value"), list):
        zipped = itertools.zip_longest(turns["from"], turns["value"])
        turns = [{"from": speaker, "value": text} for speaker, text in zipped]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"conversations: expected a list of turns, found {short_repr(conversation)}")
    return turns


def _pairs(conversation: list[Any]) -> Iterator[Sequence[Any]]:
    """Question-answer pairs; drops system turns and a leading answer, as LLaVA's loader does."""
    if _speaker(conversation[0]) not in QUESTION_ROLES:
        conversation = [turn for turn in conversation if _speaker(turn) != "system"]
        if len(conversation) > 1 and _speaker(conversation[0]) in ANSWER_ROLES:
            del conversation[0]
    for i in range(0, max(len(conversation), 1), 2):
        yield conversation[i : i + 2]


def _speaker(turn: Any) -> Any:
    return turn.get("from") if isinstance(turn, dict) else None


def _question_and_answer(pair: Sequence[Any]) -> tuple[str, str]:
    if len(pair) < 2:
        raise DataError(f"expected a question and its answer, found only {short_repr(pair)}")
    question, answer = pair
    for turn, speakers in ((question, QUESTION_ROLES), (answer, ANSWER_ROLES)):
        if field_of(turn, "from") not in speakers:
            raise DataError(f"from: expected {' or '.join(speakers)}, found {short_repr(turn['from'])}")
    return field_of(question, "value"), field_of(answer, "value")
