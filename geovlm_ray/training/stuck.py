"""Batches from which nothing can be learnt: the cause, and for how long it has lasted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from geovlm_ray.core.schema import RewardScore, SampleGroup
from geovlm_ray.learner.advantages import AdvantageSettings, is_counted, is_tied
from geovlm_ray.observability.run_recorder import TrainingWarning

STUCK_STEPS = 10
"""Steps in a row for which a cause must last before the run counts as stuck."""
MIN_GROUPS = 40
"""Groups in a row from which a cause that chance can bring about is reported."""
CERTAIN = ("nothing_scored", "all_cut_off")
"""Causes that are reported at the first batch."""


class StuckMonitor:
    """Causes for which batches, or one task in them, teach nothing; repeated only after they were gone.

    Those of the whole batch may end a run. Those of a task are reported after `STUCK_STEPS` batches that contain it,
    unless they are the whole batch's. That all groups of a task tie is none: what is nearly solved does.
    """

    def __init__(self, max_tokens: int, advantages: AdvantageSettings | None = None) -> None:
        self.max_tokens = max_tokens
        self.advantages = advantages or AdvantageSettings()
        self._batch = _Causes()
        self._tasks: defaultdict[str, _Causes] = defaultdict(_Causes)

    def update(self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """The new causes for which a batch teaches nothing, given the metrics of the learner's step."""
        batch = self._batch
        batch.update(dict(self._causes(groups, metrics)), len(groups))
        warnings = batch.report([kind for kind in batch.messages if self._is_reported(kind)])
        by_task: defaultdict[str, list[SampleGroup]] = defaultdict(list)
        for group in groups:
            by_task[group.prompt.example.task].append(group)
        for task, own in by_task.items():
            causes = self._tasks[task]
            causes.update(dict(self._causes_of_task(task, own)), len(own))
            lasting = [kind for kind in causes.messages if causes.steps[kind] >= STUCK_STEPS]
            if not batch.messages:
                warnings += causes.report(lasting[:1])
        return warnings

    def reason_to_stop(self, stop: str) -> str | None:
        """The first cause that has lasted for `STUCK_STEPS` steps; ``stop`` is the kind that counts, or ``always``."""
        for kind, message in self._batch.messages.items():
            if self._batch.steps[kind] >= STUCK_STEPS and stop in ("always", kind):
                return message
        return None

    def _is_reported(self, kind: str) -> bool:
        lasts = self._batch.groups[kind] >= MIN_GROUPS or self._batch.steps[kind] >= STUCK_STEPS
        return kind in CERTAIN or lasts

    def _causes(self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        scores, unscored = _counted(groups)
        nothing_scored = bool(unscored) and not any(score.status == "ok" for score in scores)
        if nothing_scored:
            yield (
                "nothing_scored",
                f"no well-formed completion was scored (status: {', '.join(sorted(unscored))}), so nothing is learnt; "
                "the logs of the reward actors have the reason",
            )
        if _are_cut_off(groups):
            yield (
                "all_cut_off",
                f"every completion was cut off at rollout.max_tokens={self.max_tokens}; raise it, or fine-tune until "
                "the policy ends its answers",
            )
        if self.advantages.within_groups:
            tied = all(is_tied(group, self.advantages) for group in groups)
        else:
            tied = len({score.total for score in scores}) < 2
        if tied and not nothing_scored:
            yield "no_variance", self._no_variance(groups, scores)
        if not tied and metrics.get("grad_norm") == 0:
            yield (
                "zero_gradient",
                "the gradient is 0 although rewards differ, so nothing is learnt; check learner.group_accuracy and "
                "learner.mask_truncated, which may leave out every group, and model.lora and "
                "model.freeze_vision for what is trained",
            )

    def _causes_of_task(self, task: str, groups: Sequence[SampleGroup]) -> Iterator[tuple[str, str]]:
        scores, unscored = _counted(groups)
        nothing = f"{task}: in the last {STUCK_STEPS} batches with this task"
        if unscored and not any(score.status == "ok" for score in scores):
            yield (
                "nothing_scored",
                f"{nothing}, no well-formed completion was scored (status: {', '.join(sorted(unscored))}); the logs of "
                "the reward actors have the reason",
            )
        if _are_cut_off(groups):
            yield "all_cut_off", f"{nothing}, every completion was cut off at rollout.max_tokens={self.max_tokens}"
        if scores and all(score.format == 0 for score in scores):
            yield (
                "format_never_right",
                f"{nothing}, no completion has the expected format; fine-tune the policy on this task first",
            )
        elif scores and len({score.total for score in scores}) == 1 and scores[0].accuracy < 1:
            yield (
                f"constant_reward={scores[0].total:g}",
                f"{nothing}, every completion has the reward {scores[0].total:g}; check that the reward depends on the "
                "answer, or use easier data",
            )

    def _no_variance(self, groups: Sequence[SampleGroup], scores: Sequence[RewardScore]) -> str:
        count = self._batch.groups["no_variance"] + len(groups)
        nothing = f"none of the last {count} groups had different rewards, so nothing is learnt"
        if all(score.format == 0 for score in scores):
            return (
                f"{nothing}: no completion has the expected format; fine-tune the policy first, or set reward.think "
                "and prompt.system to what it writes"
            )
        if len({score.total for score in scores}) == 1:
            return (
                f"{nothing}: every completion has the reward {scores[0].total:g}; check that the reward depends on the "
                "answer, or use easier or harder data"
            )
        return (
            f"{nothing}; use easier or harder data, set loop.resample, or raise rollout.group_size or "
            "rollout.temperature"
        )


class _Causes:
    """Causes that hold for the latest batch, by kind: the message, and for how many batches and groups in a row."""

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        self.steps: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self._reported: set[str] = set()

    def update(self, messages: dict[str, str], groups: int) -> None:
        """Take the causes of the next batch; a kind may end with ``=VALUE``, and begins again with another value."""
        self.messages = messages
        self.steps = Counter({kind: self.steps[kind] + 1 for kind in messages})
        self.groups = Counter({kind: self.groups[kind] + groups for kind in messages})
        self._reported &= messages.keys()

    def report(self, kinds: Sequence[str]) -> list[TrainingWarning]:
        """Warnings of those of the kinds that were not reported since they began."""
        new = [kind for kind in kinds if kind not in self._reported]
        self._reported.update(new)
        return [TrainingWarning(kind.partition("=")[0], self.messages[kind]) for kind in new]


def _counted(groups: Sequence[SampleGroup]) -> tuple[list[RewardScore], set[str]]:
    """Scores of the completions that count, and the statuses of the others."""
    samples = [sample for group in groups for sample in group.samples]
    scores = [sample.reward for sample in samples if sample.reward and is_counted(sample)]
    return scores, {sample.reward.status for sample in samples if sample.reward and not is_counted(sample)}


def _are_cut_off(groups: Sequence[SampleGroup]) -> bool:
    return all(sample.finish_reason == "length" for group in groups for sample in group.samples)
