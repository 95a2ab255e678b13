"""Held-out examples with the greedy answers before and after training, from the files of a run directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects
from geovlm_ray.data.sample_rows import SampleRow
from geovlm_ray.report.answers import Picture, pictures_or_reason, reference_text
from geovlm_ray.tasks.answers.grammar import ThinkMode, parse_response

COMPARED = ("task", "id", "question", "target", "frame")
"""What must be equal before and after training."""
KEYS = ("mode", "task", "id", "response", "reward")
NO_COLUMNS = "No image: the run was written by an earlier version, which stored no columns of held-out examples."
SHOWN = 6
"""Examples of each selection."""
WORST_PER_TASK = 2


@dataclass(frozen=True)
class Pair:
    """Rows of one held-out example's greedy completions before and after training, with the columns of its file."""

    before: SampleRow
    after: SampleRow


@dataclass(frozen=True)
class ShownResponse:
    """A response, its answer (None if it breaks the grammar) and its reward, given ``when``."""

    when: str
    response: str
    answer: str | None
    reward: float


@dataclass(frozen=True)
class Case:
    """A held-out example as the report shows it; ``missing`` says why there are no pictures."""

    task: str
    example_id: str
    responses: Sequence[ShownResponse]
    question: str = ""
    reference: str = ""
    pictures: Sequence[Picture] = field(default_factory=list)
    missing: str = NO_COLUMNS


def read_pairs(folder: Path) -> tuple[list[Pair], str]:
    """The held-out examples of a run directory, in their order, or the reason why they cannot be paired.

    Neither before both evaluations are done.

    Raises:
        DataError: a row lacks a key.
    """
    files = [folder / f"heldout_{when}.jsonl" for when in ("before", "after")]
    if not all(file.is_file() for file in files):
        return [], ""
    before, after = (_greedy_rows(file) for file in files)
    for rows in zip_longest(before, after):
        named = [f"{row['task']} {row['id']}" if row else "nothing" for row in rows]
        differing = [key for key in COMPARED if len({str(row[key]) for row in rows if row and key in row}) > 1]
        if None in rows or differing:
            what = f" with another {differing[0]}" if named[0] == named[1] else ""
            return [], f"{files[0].name} has {named[0]} where {files[1].name} has {named[1]}{what}"
    return [Pair(*rows) for rows in zip(before, after, strict=True)], ""


def first_of_each_task(pairs: Sequence[Pair], n: int = SHOWN) -> list[Pair]:
    """The first example of each task, then the second of each, until there are ``n``; sorted by task."""
    tasks: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        tasks[pair.after["task"]].append(pair)
    rounds = chain.from_iterable(zip_longest(*tasks.values()))
    chosen = [pair for pair in rounds if pair is not None][:n]
    return sorted(chosen, key=lambda pair: list(tasks).index(pair.after["task"]))


def worst(pairs: Sequence[Pair], max_reward: float, n: int = SHOWN) -> list[Pair]:
    """The ``n`` examples with the lowest rewards after training below the maximum, at most `WORST_PER_TASK` per task.

    Of equal rewards, the first.
    """
    chosen, counts = [], Counter[str]()
    for pair in sorted(pairs, key=lambda pair: pair.after["reward"]):
        counts[pair.after["task"]] += 1
        if pair.after["reward"] < max_reward and counts[pair.after["task"]] <= WORST_PER_TASK:
            chosen.append(pair)
    return chosen[:n]


def shown_case(pair: Pair, think: ThinkMode) -> Case:
    """The example with its pictures, question, reference and responses.

    Raises:
        DataError: the columns of the example are invalid.
    """
    # The file of before training may be of an earlier version, without the columns of the example.
    rows = [_sample_row({**pair.after, **row}, when) for when, row in (("before", pair.before), ("after", pair.after))]
    responses = [_shown_response(row, when, think) for when, row in zip(("before", "after"), rows, strict=True)]
    task, example_id = pair.after["task"], pair.after["id"]
    if "images" not in pair.after:
        return Case(task, example_id, responses)
    return Case(
        task, example_id, responses, pair.after["question"], reference_text(rows[1]), *pictures_or_reason(*rows)
    )


def _shown_response(row: SampleRow, when: str, think: ThinkMode) -> ShownResponse:
    parsed = parse_response(row["response"], think)
    return ShownResponse(when, row["response"], parsed.answer.strip() if parsed else None, row["reward"])


def _sample_row(row: SampleRow, when: str) -> SampleRow:
    """A row with the names of `geovlm_ray.data.sample_rows`."""
    return {**row, "example_id": row["id"], "completion": row["response"], "caption": f"{when} training"}


def _greedy_rows(file: Path) -> list[SampleRow]:
    rows = read_objects(file)
    for number, row in enumerate(rows, 1):
        for key in KEYS:
            if key not in row:
                raise DataError(f"{file}, line {number}: expected the key {key!r}, found only {', '.join(row)}")
    return [row for row in rows if row["mode"] == "greedy"]
