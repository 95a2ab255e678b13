"""Conversations as LLaVA and its offspring store them: ``[{"from": "human", "value"}, {"from": "gpt", "value"}]``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats.base import Unit, field_of, image_reference, shown
from geovlm_ray.data.table import Row

ASKING = ("human", "user")
ANSWERING = ("gpt", "assistant")


def conversation_rows(
    unit: Unit, conversation: Any, example: Callable[[int, str, str], Example]
) -> tuple[list[Row], list[Unit]]:
    """A record of each question and its answer, made by ``example(number, question, answer)``.

    The turns may also stand there as JSON text, or as a list of speakers and one of texts. Of several questions a bad
    one is set aside alone: it is a unit with its problem.

    Raises:
        DataError: there is no turn, or the only one is bad.
    """
    rows, bad = [], []
    pairs = list(_pairs(_turns(conversation)))
    for number, pair in enumerate(pairs, 1):
        try:
            rows.append(Row(example(number, *_spoken(pair))))
        except DataError as error:
            if len(pairs) == 1:
                raise
            bad.append(replace(unit, value=pair, problem=f"turn {number}: {error}"))
    return rows, bad


def turn_id(id: str, number: int) -> str:
    """The id of a turn of a record: the record's own for the first, which most have alone."""
    return id if number == 1 else f"{id}-{number}"


def record_id(record: Mapping[str, Any], unit: Unit, *keys: str) -> str:
    """The first of the keys that a record has as its id, else where it stands.

    Raises:
        DataError: the id is neither text nor a whole number.
    """
    for key in keys:
        if record.get(key) is not None:
            return str(field_of(record, key, (str, int)))
    return f"{unit.file}:{unit.number}"


def images_of(record: Mapping[str, Any], key: str = "image") -> tuple[str, ...]:
    """A record's image paths: one, or a list in order, repeated ones included.

    Raises:
        DataError: there is none, or one is no path within the root.
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
            raise DataError(f"conversations: expected turns as JSON, found {shown(turns)}: {error}") from error
    if isinstance(turns, dict) and isinstance(turns.get("from"), list) and isinstance(turns.get("value"), list):
        turns = [{"from": who, "value": text} for who, text in itertools.zip_longest(turns["from"], turns["value"])]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"conversations: expected a list of turns, found {shown(conversation)}")
    return turns


def _pairs(conversation: list[Any]) -> Iterator[Sequence[Any]]:
    """Two turns at a time; a system turn, and an answer before any question, are left out, as LLaVA's loader does."""
    if _speaker(conversation[0]) not in ASKING:
        conversation = [turn for turn in conversation if _speaker(turn) != "system"]
        if len(conversation) > 1 and _speaker(conversation[0]) in ANSWERING:
            del conversation[0]
    for i in range(0, max(len(conversation), 1), 2):
        yield conversation[i : i + 2]


def _speaker(turn: Any) -> Any:
    return turn.get("from") if isinstance(turn, dict) else None


def _spoken(pair: Sequence[Any]) -> tuple[str, str]:
    if len(pair) < 2:
        raise DataError(f"expected a question and its answer, found only {shown(pair)}")
    question, answer = pair
    for turn, speakers in ((question, ASKING), (answer, ANSWERING)):
        if field_of(turn, "from") not in speakers:
            raise DataError(f"from: expected {' or '.join(speakers)}, found {shown(turn['from'])}")
    return field_of(question, "value"), field_of(answer, "value")
