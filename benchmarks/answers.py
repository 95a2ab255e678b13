"""Share of judged answers that the default rewards score outside the judge's bounds.

``python -m benchmarks.answers [FILE ...] [--show] [--json OUT]``. A file holds one JSON object a line: ``answer``
(between the answer tags) or ``response`` (complete), ``target``, ``low`` and ``high`` (bounds of the accuracy, judged
before it was scored), ``why``, and optionally ``task``, ``labels``, ``question``, ``frame`` and ``dialect``. Without
``task``, the name of the file is the task. ``"disagrees": "judgement"`` marks an answer whose score is debatable. The
default files are those of ``tests/answers``.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, at_most, parser, record
from geovlm_ray.data.records import scoring_record
from geovlm_ray.rewards import RewardConfig
from geovlm_ray.rewards.local import LocalRewards

ANSWERS = Path(__file__).parents[1] / "tests" / "answers"
TOLERANCE = 1e-9
MAX_WRONG = 0.03


@dataclass(frozen=True)
class Judged:
    """A judged answer, and the accuracy that its reward gives it."""

    task: str
    record: dict[str, Any]
    accuracy: float

    @property
    def verdict(self) -> str:
        """``within`` the bounds, ``too high`` or ``too low``."""
        if self.accuracy > self.record["high"] + TOLERANCE:
            return "too high"
        return "too low" if self.accuracy < self.record["low"] - TOLERANCE else "within"


def judged_answers(files: Iterable[Path], tasks: Sequence[str] = ()) -> list[Judged]:
    """Score the answers of files, of the given tasks or of all, with the default rewards."""
    found = [(task, record) for task, record in read_records(files) if not tasks or task in tasks]
    parsed = [scoring_record({"id": "", "task": task, **record}) for task, record in found]
    scores = LocalRewards(RewardConfig()).score_batch([response for _, response in parsed], [e for e, _ in parsed])
    return [Judged(task, record, score.accuracy) for (task, record), score in zip(found, scores, strict=True)]


def table(answers: Iterable[Judged]) -> str:
    """Answers, and those within, above and below their bounds, by task and in total."""
    lines = [f"{'task':<28}{'answers':>9}{'within':>9}{'too high':>10}{'too low':>9}{'wrong':>9}"]
    for task, group in by_task(answers).items():
        within, high, low = (sum(a.verdict == v for a in group) for v in ("within", "too high", "too low"))
        lines.append(f"{task:<28}{len(group):>9}{within:>9}{high:>10}{low:>9}{wrong_share(group):>9.1%}")
    return "\n".join(lines)


def by_task(answers: Iterable[Judged]) -> dict[str, list[Judged]]:
    """The answers of each task, and of all as ``total``."""
    grouped: defaultdict[str, list[Judged]] = defaultdict(list)
    for answer in answers:
        grouped[answer.task].append(answer)
    return {**grouped, "total": [answer for group in grouped.values() for answer in group]}


def wrong_share(group: Sequence[Judged]) -> float:
    """Share of answers outside their bounds."""
    return sum(answer.verdict != "within" for answer in group) / max(len(group), 1)


def main() -> int:
    """Print the table and, with ``--show``, every answer outside its bounds."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("files", nargs="*", type=Path, help="files of judged answers (default: tests/answers/*)")
    arguments.add_argument("--show", action="store_true", help="print the answers outside their bounds")
    options = arguments.parse_args()
    answers = judged_answers(options.files or sorted(ANSWERS.glob("*.jsonl")))
    for answer in answers if options.show else ():
        if answer.verdict != "within":
            print(f"{answer.task}: {answer.verdict}, {answer.accuracy:.3f}: {json.dumps(answer.record)}")
    print(table(answers))
    figures = []
    for task, group in by_task(answers).items():
        figures += [
            Figure(f"{task}, answers", len(group)),
            at_most(f"{task}, share with a wrong reward", wrong_share(group), MAX_WRONG),
        ]
    return record("answers", figures, options)


def read_records(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Task and record of each judged answer in files."""
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                value = json.loads(line)
                value.setdefault("response", f"<think></think><answer>{value.get('answer', '')}</answer>")
                yield value.get("task", file.stem), value


if __name__ == "__main__":
    sys.exit(main())
