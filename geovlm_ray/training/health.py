"""Warnings about training batches that teach nothing, or the wrong thing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from geovlm_ray.config import Config
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, SampleGroup, target_texts
from geovlm_ray.data.answers import answer_text
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.evaluation.validation import Completion, rewards_of
from geovlm_ray.learner.advantages import AdvantageSettings
from geovlm_ray.observability.run_recorder import TrainingWarning
from geovlm_ray.rewards.monitor import HackingMonitor
from geovlm_ray.tasks.answers.grammar import ThinkMode, parse_response
from geovlm_ray.training.stuck import StuckMonitor

WINDOW = 200
"""Latest prompts of a task in which one answer may dominate."""
MIN_PROMPTS = 40
"""Prompts of a task from which a conclusion is drawn."""
MIN_EXAMPLES = 20
"""Held-out examples of a task from which its reward is compared with that of the best constant answer."""
MIN_ERRORS = 2.0
"""Standard errors by which a task's mean reward must exceed that of the best constant answer."""
MARGIN = 0.15
"""Share by which an answer must exceed the share of prompts for which it is right, beyond three standard errors."""


@dataclass(frozen=True)
class _Answer:
    """The first completion's answer to a prompt, and whether it is one of the prompt's references."""

    text: str
    is_reference: bool


def settings_warnings(config: Config) -> list[TrainingWarning]:
    """Warnings about combinations of settings that are valid but rarely meant."""
    learner = config.learner
    warnings = []
    if learner.objective == "gspo" and learner.old_logprobs == "engine":
        warnings.append(
            "learner.objective=gspo with old_logprobs=engine: its clip bounds are narrower than the rounding "
            "differences between engine and learner, which alone clip a third or more of the samples; set "
            "learner.old_logprobs=learner"
        )
    if learner.kl_in_loss and learner.kl_estimator == "k1":
        warnings.append(
            "learner.kl_estimator=k1 in the loss: its expected gradient is 0, so it does not hold the policy near the "
            "reference; set learner.kl_estimator=k2 or k3_unbiased, or learner.kl_in=reward"
        )
    return [TrainingWarning("settings", message) for message in warnings]


def constant_answer_warnings(
    rows: Sequence[Completion], constants: Mapping[str, ConstantAnswer], when: str
) -> list[TrainingWarning]:
    """Warnings about tasks whose greedy answers earn no more than the best constant answer, paired by example.

    ``rows`` are completions of the held-out examples, ``when`` says when they were made (``before training``). Tasks
    with fewer than `MIN_EXAMPLES` examples allow no conclusion.
    """
    warnings = []
    for task, rewards in rewards_of(rows)["greedy"].items():
        gain = np.subtract(rewards, constants[task].rewards)
        if len(gain) >= MIN_EXAMPLES and gain.mean() <= MIN_ERRORS * gain.std() / math.sqrt(len(gain)):
            warnings.append(
                f"{task}: the greedy reward {when}, {np.mean(rewards):.3f} on {len(gain)} held-out examples, is not "
                f"measurably above that of the best constant answer, {np.mean(constants[task].rewards):.3f} for "
                f"{_short(constants[task].answer)!r}: the policy may not use the image; fine-tune it first or longer, "
                "and check the images with `geovlm-ray data preview`"
            )
    return [TrainingWarning("constant_answer", message) for message in warnings]


class HealthMonitor:
    """Checks every scored batch; a warning is repeated only after its cause was gone.

    ``stop`` says for which causes `reason_to_stop` ends a run: ``never``, ``always``, or one kind of warning.
    """

    def __init__(
        self, think: ThinkMode, max_tokens: int, stop: str = "never", advantages: AdvantageSettings | None = None
    ) -> None:
        self.think = think
        self.stop = stop
        self._hacking = HackingMonitor(think)
        self._stuck = StuckMonitor(max_tokens, advantages)
        self._answers: defaultdict[str, deque[_Answer]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._dominated: set[str] = set()

    @property
    def reason_to_stop(self) -> str | None:
        """Why the run cannot learn, if it has not for `geovlm_ray.training.stuck.STUCK_STEPS` steps."""
        return self._stuck.reason_to_stop(self.stop)

    def update(
        self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]
    ) -> tuple[dict[str, float], list[TrainingWarning]]:
        """Metrics ``answers/TASK/STATISTIC`` of a batch, and the warnings that are new in it.

        ``metrics`` are those of the learner's step.

        Raises:
            ValueError: a sample has not been scored.
        """
        answer_metrics, hacking = self._hacking.update(groups)
        dominant = dict(self._dominant_answers(groups))
        new = [
            TrainingWarning("dominant_answer", text) for task, text in dominant.items() if task not in self._dominated
        ]
        self._dominated = set(dominant)
        hacked = [TrainingWarning("reward_hacking", message) for message in hacking]
        return answer_metrics, [*hacked, *self._stuck.update(groups, metrics), *new]

    def _dominant_answers(self, groups: Sequence[SampleGroup]) -> Iterator[tuple[str, str]]:
        """Each task that one answer dominates over the latest prompts, with the message that says so."""
        for group in groups:
            parsed = parse_response(group.samples[0].text, self.think)
            answer = _normal(parsed.answer if parsed else group.samples[0].text)
            is_reference = answer in _references(group.prompt.example)
            self._answers[group.prompt.example.task].append(_Answer(answer, is_reference))
        for task, answers in self._answers.items():
            total = len(answers)
            text, count = Counter(answer.text for answer in answers).most_common(1)[0]
            right = sum(answer.text == text and answer.is_reference for answer in answers) / total
            # What the policy gets right it may say often; the rest is what it says regardless of the image.
            excess, error = count / total - right, math.sqrt(right * (1 - right) / total)
            if total >= MIN_PROMPTS and excess > MARGIN + 3 * error:
                yield (
                    task,
                    f"{task}: {count / total:.0%} of the answers to {total} different prompts are {_short(text)!r}, "
                    f"right for {right:.0%}; the policy answers without looking. Start from a policy that was "
                    "fine-tuned longer, lower learner.lr, or check that the reward does not pay for a constant answer",
                )


def _references(example: Example) -> set[str]:
    """Answers that are right: any reference text, or the reference answer as the policy would write it."""
    references = list(target_texts(example.target))
    with suppress(DataError):
        references.append(answer_text(example))
    return {_normal(text) for text in references}


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
