"""What a run's numbers say, in three sentences: what changed, where it fails, and whether an answer dominates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from geovlm_ray.report.curves import StepMetrics
from geovlm_ray.report.held_out import ALL, MEASURABLE, Estimate, HeldOutResult, TaskAnswers

NOTE = (
    "Changes are paired by example, with 95% intervals in brackets; a measurable change is at least "
    f"{MEASURABLE:g} standard errors from 0. By task: greedy answers."
)
"""How to read the sentences of `conclusions`."""
MAX_ANSWER_CHARS = 60
_UNCHANGED = "no measurable change"
STEPS = 10
"""Steps at each end of an unfinished run whose rewards are compared."""


def conclusions(
    results: Sequence[HeldOutResult], answers: Sequence[TaskAnswers], warnings: int, max_reward: float
) -> list[str]:
    """Sentences about a run from its held-out results; ``warnings`` is the number of its warnings.

    A change counts as measured if it differs from 0 by at least `MEASURABLE` standard errors.
    """
    overall = {result.decoding: result for result in results if result.task == ALL}
    tasks = [result for result in results if result.task != ALL and result.decoding == "greedy"]
    sentences = [_overall(overall["greedy"], overall["sampled"], max_reward)]
    if len(tasks) > 1:
        sentences.append(f"{_largest_changes(tasks)} {_weakest(tasks, max_reward)}")
    else:
        sentences.append(_weakest(tasks, max_reward))
    return [*sentences, _gaming(answers, warnings)]


def progress(rows: Sequence[StepMetrics], warnings: int, max_reward: float, incomparable: str = "") -> list[str]:
    """Sentences about a run without held-out results, from the metrics of its steps.

    ``incomparable`` is the reason why those before and after training cannot be compared, if there are any.
    """
    sentences = [
        f"Rewards of held-out examples before and after training cannot be compared: {incomparable}."
        if incomparable
        else "Nothing is known yet about held-out examples: the run has not finished, or evaluation.num_examples is 0."
    ]
    rewards = [row["reward/mean"] for row in rows if "reward/mean" in row]
    n = min(STEPS, len(rewards) // 2)
    if n:
        first, last = sum(rewards[:n]) / n, sum(rewards[-n:]) / n
        steps = f"{n} steps" if n > 1 else "step"
        sentences.append(
            f"The mean sampled reward was {first:.3f} in the first {steps} and {last:.3f} in the last {steps}, of at "
            f"most {max_reward:g}; these are different prompts."
        )
    return sentences + ([f"The run gave {_count(warnings, 'warning')}, listed below."] if warnings else [])


def _overall(greedy: HeldOutResult, sampled: HeldOutResult, max_reward: float) -> str:
    before, after = greedy.before.mean, greedy.after.mean
    subject = f"On {_count(greedy.change.n, 'held-out example')}, the greedy reward (at most {max_reward:g})"
    if greedy.change.is_measurable:
        first = f"{subject} {_verb(greedy.change)} from {before:.3f} to {after:.3f}, by {_change(greedy.change)}"
    else:
        first = f"{subject} shows {_UNCHANGED}: {before:.3f} before, {after:.3f} after, {_change(greedy.change)}"
    second = f"{_verb(sampled.change)} by" if sampled.change.is_measurable else f"shows {_UNCHANGED}:"
    return f"{first}. The sampled reward {second} {_change(sampled.change)}."


def _largest_changes(tasks: Sequence[HeldOutResult]) -> str:
    """The tasks that gained and lost most; with a reservation where a change is not measurable."""
    best, worst = max(tasks, key=lambda r: r.change.mean), min(tasks, key=lambda r: r.change.mean)
    parts = []
    if best.change.mean > 0:
        parts.append(f"{best.task} gained most, {_task_change(best.change)}")
    if worst.change.mean < 0:
        parts.append(f"{worst.task} lost most, {_task_change(worst.change)}")
    return f"By task, {' and '.join(parts)}." if parts else "No task changed."


def _weakest(tasks: Sequence[HeldOutResult], max_reward: float) -> str:
    """The task with the lowest reward, and the tasks that a constant answer matches."""
    lowest = min(tasks, key=lambda result: result.after.mean)
    share = lowest.after.mean / max_reward
    text = f"The lowest reward is that of {lowest.task}, {lowest.after.mean:.3f}, {share:.0%} of the maximum"
    matched = [f"{r.task} ({r.after.mean:.3f} against {r.constant:.3f})" for r in tasks if r.after.mean <= r.constant]
    if not matched:
        return f"{text}; every task is above its best constant answer."
    return f"{text}; not above the best constant answer: {', '.join(matched)}."


def _gaming(answers: Sequence[TaskAnswers], warnings: int) -> str:
    found = [
        f"in {a.task}, “{textwrap.shorten(a.most_common, MAX_ANSWER_CHARS, placeholder='...')}” is {a.share:.0%} of "
        f"the greedy answers ({a.share_before:.0%} before training; most frequent reference {a.reference_share:.0%})"
        for a in answers
        if a.dominates
    ]
    listed = f"the run gave {_count(warnings, 'warning')}, listed below" if warnings else ""
    if found:
        return f"Check for a gamed reward: {'; '.join([*found, *([listed] if listed else [])])}."
    if any(a.reference_share is None for a in answers) or not answers:
        known = "Whether an answer dominates is unknown: the run has no reference answers of its held-out examples"
    else:
        known = "No greedy answer is far more frequent than the reference answers"
    return f"{known}; {listed}." if listed else f"{known}, and the run gave no warnings."


def _verb(change: Estimate) -> str:
    return "rose" if change.mean > 0 else "fell"


def _change(change: Estimate) -> str:
    errors = "more than 100" if change.errors > 100 else f"{change.errors:.1f}"
    return f"{change.mean:+.3f} {change.interval_text()} ({errors} standard errors)"


def _task_change(change: Estimate) -> str:
    text = f"{change.mean:+.3f} {change.interval_text()}"
    return text if change.is_measurable else f"{text} (not measurable)"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("s" if n != 1 else "")
