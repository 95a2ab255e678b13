"""Score a file of responses line by line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from geovlm_ray.core.errors import UNREADABLE
from geovlm_ray.core.schema import Example
from geovlm_ray.data.records import scoring_record
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.groups import INVALID
from geovlm_ray.rewards.local import LocalRewards


def score_lines(lines: Iterable[str], config: RewardConfig) -> tuple[list[str], list[str]]:
    """Score JSON lines; returns one JSON line per non-blank input line, in order, and one error per invalid line.

    Errors give the line number; blank lines count.
    """
    ids: list[object] = []
    records: dict[int, tuple[Example, str]] = {}
    problems: list[str] = []
    for number, line in ((n, line) for n, line in enumerate(lines, 1) if line.strip()):
        value: object = None
        try:
            value = json.loads(line)
            records[len(ids)] = scoring_record(value)
        except UNREADABLE as error:
            problems.append(f"line {number}: {error}")
        ids.append(value.get("id") if isinstance(value, dict) else None)
    examples, responses = [example for example, _ in records.values()], [response for _, response in records.values()]
    scores = dict(zip(records, LocalRewards(config).score_batch(responses, examples), strict=True))
    rows = ({"id": name, **dataclasses.asdict(scores.get(i, INVALID))} for i, name in enumerate(ids))
    return list(map(json.dumps, rows)), problems
