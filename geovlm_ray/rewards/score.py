"""From responses to scores: the grammar first, then each task's accuracy, then their combination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from geovlm_ray.core.schema import Example, RewardScore
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.isolated import judge_by_user
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks.grammar import parse_response


def needs_embedder(task: str, config: RewardConfig) -> bool:
    """Whether the reward of a task embeds sentences."""
    return config.function is None and REWARDS[config.form(task)].embeds(config)


def score_batch(
    responses: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None = None
) -> list[RewardScore]:
    """Score responses, each against its example, in order.

    A response that breaks the grammar has format and accuracy 0 and status ``unparseable``; one longer than
    ``config.max_chars`` is not looked at and has status ``too_long``. Every string gets a score. Where
    ``config.function`` is set, it judges the well-formed responses of all tasks.

    Raises:
        ValueError: the two sequences differ in length.
        ConfigError: the user's function cannot be loaded.
    """
    parsed = [parse_response(r, config.think) if len(r) <= config.max_chars else None for r in responses]
    scores = [RewardScore(0.0, 0.0, 0.0, {}, _unread(r, config)) for r in responses]
    places: defaultdict[str, list[int]] = defaultdict(list)
    for i, (response, example) in enumerate(zip(parsed, examples, strict=True)):
        if response is not None:
            places[example.task].append(i)
    for task, chosen in places.items():
        theirs = [examples[i] for i in chosen]
        if config.function:
            judged = judge_by_user([responses[i] for i in chosen], theirs, config)
        else:
            answers = [p.answer for p in map(parsed.__getitem__, chosen) if p is not None]
            judged = REWARDS[config.form(task)].judge(answers, theirs, config, embedder)
        for i, one in zip(chosen, judged, strict=True):
            scores[i] = combine(one, task, config)
    return scores


def _unread(response: str, config: RewardConfig) -> str:
    return "too_long" if len(response) > config.max_chars else "unparseable"


def combine(judged: RewardResult, task: str, config: RewardConfig) -> RewardScore:
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
