"""Scoring of responses: format check, accuracy per task, and their combination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from geovlm_ray.core.schema import Example, RewardScore
from geovlm_ray.rewards.base import Embedder, RewardResult
from geovlm_ray.rewards.config import RewardConfig, TextWeights, is_function
from geovlm_ray.rewards.isolated import score_by_user_function
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.rewards.text_metrics.wordnet import require_wordnet
from geovlm_ray.tasks.answers.grammar import Parsed, parse_response

UNPARSEABLE, TOO_LONG = (RewardScore(0.0, 0.0, 0.0, status=status) for status in ("unparseable", "too_long"))


def needs_embedder(task: str, config: RewardConfig) -> bool:
    """Whether the reward of a task needs sentence embeddings."""
    weights = _text_weights(task, config)
    return weights is not None and weights.sbert > 0


def check_wordnet(config: RewardConfig, tasks: Iterable[str]) -> None:
    """Check, without loading it, that WordNet is installed if the reward of a task includes METEOR.

    Raises:
        WordNetMissing: It is not.
    """
    for task in tasks:
        weights = _text_weights(task, config)
        if weights is not None and weights.meteor > 0:
            require_wordnet()


def _text_weights(task: str, config: RewardConfig) -> TextWeights | None:
    form = config.form(task)
    return None if is_function(form) else REWARDS[form].text_weights(config)


def score_batch(
    responses: Sequence[str], examples: Sequence[Example], config: RewardConfig, embedder: Embedder | None = None
) -> list[RewardScore]:
    """Score each response against its example; returns scores in the same order.

    Every string gets a score. A response that violates the grammar, or states a confidence where none is wanted or the
    reverse, has format and accuracy 0 and status ``unparseable``; one longer than ``config.max_chars`` is not parsed
    and has status ``too_long``. A user function receives whole responses, a built-in reward the answers.

    Raises:
        ValueError: The sequences differ in length.
        ConfigError: A user function cannot be loaded.
    """
    scores: list[RewardScore] = []
    parsed_responses: dict[int, Parsed] = {}
    indices_by_task: defaultdict[str, list[int]] = defaultdict(list)
    for i, (response, example) in enumerate(zip(responses, examples, strict=True)):
        too_long = len(response) > config.max_chars
        scores.append(TOO_LONG if too_long else UNPARSEABLE)
        parsed = None if too_long else parse_response(response, config.think)
        if parsed and (parsed.confidence is None) == (config.confidence == "none"):
            parsed_responses[i] = parsed
            indices_by_task[example.task].append(i)
    for task, indices in indices_by_task.items():
        task_examples, form = [examples[i] for i in indices], config.form(task)
        if is_function(form):
            task_responses = [responses[i] for i in indices]
            results = score_by_user_function(form, task_responses, task_examples, config)
        else:
            results = REWARDS[form].score(
                [parsed_responses[i].answer for i in indices], task_examples, config, embedder
            )
        for i, result in zip(indices, results, strict=True):
            scores[i] = combine(result, task, config, parsed_responses[i].confidence)
    return scores


def combine(result: RewardResult, task: str, config: RewardConfig, confidence: float | None = None) -> RewardScore:
    """Total reward of a well-formed response (format 1), with the accuracy rescaled by ``config.normalize``.

    ``sum`` is the paper's R = R_format + R_accuracy, in [0, 2]; the other combinations lie in [0, 1]. A stated
    confidence enters the total by `calibrated`, and the components.
    """
    low, high = config.normalize.get(task, (0.0, 1.0))
    accuracy = min(max((result.accuracy - low) / (high - low), 0.0), 1.0)
    components = result.components
    if confidence is not None:
        components = {**components, "confidence": confidence, "brier": (confidence - accuracy) ** 2}
        accuracy = calibrated(accuracy, confidence)
    if config.combine == "sum":
        total = 1.0 + accuracy
    elif config.combine == "weighted":
        total = config.format_weight + (1 - config.format_weight) * accuracy
    else:
        total = accuracy
    return RewardScore(total, 1.0, result.accuracy, components, result.status)


def calibrated(accuracy: float, confidence: float) -> float:
    """Accuracy a with the Brier score of a stated confidence q, (1 + a - (q - a)^2) / 2, in [0, 1].

    Its mean over answers is highest where q is their mean accuracy (RLCR, Damani et al., 2025, arXiv 2507.16806).
    """
    return (1 + accuracy - (confidence - accuracy) ** 2) / 2
