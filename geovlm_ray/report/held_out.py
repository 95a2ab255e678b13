"""Held-out rewards before and after training, as rows for tables; read from the summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geovlm_ray.core.errors import DataError

COLUMNS = ("task", "decoding", "examples", "best constant", "before", "after", "change")


@dataclass(frozen=True)
class Estimate:
    """Mean of ``n`` rewards or of their paired changes, with its standard error."""

    mean: float
    se: float
    n: int

    def text(self, sign: str = "") -> str:
        """``mean ± se``; with the sign ``+``, positive means have one too."""
        return f"{self.mean:{sign}.3f} ± {self.se:.3f}"


@dataclass(frozen=True)
class HeldOutResult:
    """Rewards of one task (or ``all``) in one decoding mode, on the same examples before and after training.

    ``constant`` is the mean reward of the best constant answer; ``change`` is paired by example.
    """

    task: str
    decoding: str
    constant: float
    before: Estimate
    after: Estimate
    change: Estimate

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns `COLUMNS` as text."""
        estimates = (self.before.text(), self.after.text(), self.change.text("+"))
        return (self.task, self.decoding, f"{self.after.n}", f"{self.constant:.3f}", *estimates)


def held_out_results(summary: Mapping[str, Any]) -> list[HeldOutResult]:
    """The rows of a run's ``summary.json``: all tasks, then each task; by decoding mode.

    Empty without held-out examples, and for summaries of earlier versions, which have no constant answers. Raises
    DataError for an invalid entry.
    """
    heldout = summary.get("heldout") or {}
    if "constant" not in heldout:
        return []
    try:
        tasks = heldout["per_task"]
        overall = {mode: heldout[mode] for modes in tasks.values() for mode in modes}
        return [
            HeldOutResult(task, mode, constant, *(Estimate(**pair[part]) for part in ("before", "after", "change")))
            for task, modes in {"all": overall, **tasks}.items()
            for constant in (heldout["constant"][task]["mean"],)
            for mode, pair in modes.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"summary.json: heldout: expected rewards before and after training, found {error}") from error


def constant_answers(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Of each task: the best constant answer, the most common greedy answer after training, and its share."""
    heldout = summary.get("heldout") or {}
    return [
        (task, heldout["constant"][task]["answer"], common["answer"], f"{common['share']:.1%}")
        for task, common in heldout.get("most_common", {}).items()
        if "constant" in heldout
    ]
