"""Score a file of responses line by line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, RewardScore
from geovlm_ray.data.records import scoring_record
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.score import needs_embedder, score_batch

INVALID = RewardScore(0.0, 0.0, 0.0, status="invalid_record")

# Besides DataError, malformed JSON can raise these in a reader: huge integers, lists as names, deep nesting.
UNREADABLE = (DataError, ValueError, TypeError, ArithmeticError, RecursionError)


def score_lines(lines: Iterable[str], config: RewardConfig) -> tuple[list[str], list[str]]:
    """Score JSON lines; returns one JSON line per non-blank input line, in order, and one error per invalid line.

    Errors give the line number; blank lines count.
    """
    ids: list[object] = []
    records: list[tuple[Example, str] | None] = []
    problems: list[str] = []
    for number, line in ((n, line) for n, line in enumerate(lines, 1) if line.strip()):
        value: object = None
        record = None
        try:
            value = json.loads(line)
            record = scoring_record(value)
        except UNREADABLE as error:
            problems.append(f"line {number}: {error}")
        ids.append(value.get("id") if isinstance(value, dict) else None)
        records.append(record)
    valid = [r for r in records if r is not None]
    embedder = None
    if any(needs_embedder(example.task, config) for example, _ in valid):
        embedder = SbertEmbedder.from_config(config.sbert)
    scores = iter(score_batch([response for _, response in valid], [example for example, _ in valid], config, embedder))
    return [_line(i, INVALID if r is None else next(scores)) for i, r in zip(ids, records, strict=True)], problems


def _line(record_id: object, score: RewardScore) -> str:
    return json.dumps({"id": record_id, **dataclasses.asdict(score)})
