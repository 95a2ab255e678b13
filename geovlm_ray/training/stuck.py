"""Batches from which nothing can be learnt: the cause, and for how long it has lasted."""

from __future__ import annotations

from collections import Counter
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
    """Counts for how many steps in a row each cause has lasted; a cause is reported again only after it was gone."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._steps: Counter[str] = Counter()
        self._groups: Counter[str] = Counter()
        self._reported: set[str] = set()
        self._messages: dict[str, str] = {}

    def update(self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """The new causes for which a batch teaches nothing, given the metrics of the learner's step."""
        self._messages = dict(self._causes(groups, metrics))
        self._steps = Counter({kind: self._steps[kind] + 1 for kind in self._messages})
        self._groups = Counter({kind: self._groups[kind] + len(groups) for kind in self._messages})
        self._reported &= self._messages.keys()
        new = [kind for kind in self._messages if kind not in self._reported and self._is_reported(kind)]
        self._reported.update(new)
        return [TrainingWarning(kind, self._messages[kind]) for kind in new]

    def reason_to_stop(self, stop: str) -> str | None:
        """The first cause that has lasted for `STUCK_STEPS` steps; ``stop`` is the kind that counts, or ``always``."""
        for kind, message in self._messages.items():
            if self._steps[kind] >= STUCK_STEPS and stop in ("always", kind):
                return message
        return None

    def _is_reported(self, kind: str) -> bool:
        return kind in CERTAIN or self._groups[kind] >= MIN_GROUPS or self._steps[kind] >= STUCK_STEPS

    def _causes(self, groups: Sequence[SampleGroup], metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        samples = [sample for group in groups for sample in group.samples]
        scores = [sample.reward for sample in samples if sample.reward and is_counted(sample)]
        unscored = {sample.reward.status for sample in samples if sample.reward and not is_counted(sample)}
        nothing_scored = bool(unscored) and not any(score.status == "ok" for score in scores)
        if nothing_scored:
            yield (
                "nothing_scored",
                f"no well-formed completion was scored (status: {', '.join(sorted(unscored))}), so nothing is learnt; "
                "the logs of the reward actors have the reason",
            )
        if all(sample.finish_reason == "length" for sample in samples):
            yield (
                "all_cut_off",
                f"every completion was cut off at rollout.max_tokens={self.max_tokens}; raise it, or fine-tune until "
                "the policy ends its answers",
            )
        tied = all(is_tied(group, AdvantageSettings()) for group in groups)
        if tied and not nothing_scored:
            yield "no_variance", self._no_variance(groups, scores)
        if not tied and metrics.get("grad_norm") == 0:
            yield (
                "zero_gradient",
                "the gradient is 0 although rewards differ, so nothing is learnt; check learner.group_accuracy and "
                "learner.mask_truncated, which may leave out every group, and model.lora and "
                "model.freeze_vision for what is trained",
            )

    def _no_variance(self, groups: Sequence[SampleGroup], scores: Sequence[RewardScore]) -> str:
        count = self._groups["no_variance"] + len(groups)
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
