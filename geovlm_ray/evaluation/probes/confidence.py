"""Probe of stated confidence: what constant statements earn, at each share of right answers, beside an honest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example
from geovlm_ray.evaluation.probes.answers import texts
from geovlm_ray.rewards import Embedder, RewardConfig, score_batch
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.grammar import written_response

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of right answers."""
STATEMENTS = (0.0, 0.5, 1.0)
"""What strategies state about every answer."""
WRONG = "none of these"


@dataclass(frozen=True)
class ConfidenceRow:
    """Mean total rewards of a policy whose answers are right in a share of cases: stating that share, and constants."""

    share: float
    honest: float
    constants: dict[float, float]

    @property
    def gamed_by(self) -> list[float]:
        """The constant statements that earn at least what the honest one does, although they are wrong."""
        return [q for q, value in self.constants.items() if q != self.share and value >= self.honest]


def probe_confidence(
    examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> list[ConfidenceRow]:
    """Mean rewards of statements for each of `SHARES`; none without records of classes or questions.

    The answers are the references of these records, or `WRONG`.
    """
    plain = [example for example in examples if TASKS[example.task].target_kind in ("classes", "vqa")]
    if not plain:
        return []
    answers = [[", ".join(texts(example)) for example in plain], [WRONG] * len(plain)]
    rows = []
    for share in SHARES:

        def mean(stated: float, share: float = share) -> float:
            right, wrong = (_mean(part, stated, plain, config, embedder) for part in answers)
            return share * right + (1 - share) * wrong

        rows.append(ConfidenceRow(share, mean(share), {q: mean(q) for q in STATEMENTS}))
    return rows


def confidence_text(rows: Sequence[ConfidenceRow]) -> str:
    """A line per share of right answers."""
    head = f"{'right':>6} {'honest':>8} " + " ".join(f"{f'says {q:.0%}':>10}" for q in STATEMENTS)
    lines = [
        f"{row.share:>6.0%} {row.honest:>8.3f} " + " ".join(f"{row.constants[q]:>10.3f}" for q in STATEMENTS)
        for row in rows
    ]
    return "\n".join([head, *lines])


def _mean(
    answers: Sequence[str], stated: float, examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None
) -> float:
    reasoning = None if config.think == "none" else "I look at the image."
    responses = [written_response(answer, reasoning, stated) for answer in answers]
    return float(np.mean([score.total for score in score_batch(responses, examples, config, embedder)]))
