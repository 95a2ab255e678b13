"""From responses to scores: the grammar first, then each task's accuracy, then their combination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from geovlm_ray.rewards.base import Embedder, Judged
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.registry import FORMS
from geovlm_ray.schema import Example, RewardScore
from geovlm_ray.tasks.grammar import parse_response


def needs_embedder(task: str, config: RewardConfig) -> bool:
    """Whether the reward of a task embeds sentences."""
    return FORMS[config.form(task)].embeds(config)


def score_batch(
    responses: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None = None
) -> list[RewardScore]:
    """Score responses, each against its example, in order.

    A response that breaks the grammar has format and accuracy 0 and status ``unparseable``; one longer than
    ``config.max_chars`` is not looked at and has status ``too_long``. Every string gets a score.

    Raises:
        ValueError: the two sequences differ in length.
    """
    scores: list[RewardScore | None] = [None] * len(responses)
    answers: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for i, (response, example) in enumerate(zip(responses, examples, strict=True)):
        parsed = None if len(response) > config.max_chars else parse_response(response, config.think)
        if parsed is None:
            scores[i] = RewardScore(
                0.0, 0.0, 0.0, {}, "too_long" if len(response) > config.max_chars else "unparseable"
            )
        else:
            answers[example.task].append((i, parsed.answer))
    for task, indexed in answers.items():
        judged = FORMS[config.form(task)].judge(
            [a for _, a in indexed], [examples[i] for i, _ in indexed], config, embedder
        )
        for (i, _), one in zip(indexed, judged, strict=True):
            scores[i] = combine(one, task, config)
    return [score for score in scores if score is not None]


def combine(judged: Judged, task: str, config: RewardConfig) -> RewardScore:
    """The total of a well-formed response: its format is 1, its accuracy as judged.

    ``sum`` is the paper's R = R_format + R_accuracy, in [0, 2]; the others lie in [0, 1].
    """
    low, high = config.normalize.get(task, (0.0, 1.0))
    accuracy = min(max((judged.accuracy - low) / (high - low), 0.0), 1.0)
    if config.combine == "sum":
        total = 1.0 + accuracy
    elif config.combine == "weighted":
        total = config.format_weight + (1 - config.format_weight) * accuracy
    else:
        total = accuracy
    return RewardScore(total, 1.0, judged.accuracy, judged.components, judged.status)
