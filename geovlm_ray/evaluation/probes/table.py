"""The probe table as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geovlm_ray.evaluation.probes.strategies import PROBES
from geovlm_ray.evaluation.probes.suite import GAMED_SHARE, ProbeResult

MIN_WIDTH = 8


def as_text(rows: Sequence[ProbeResult]) -> str:
    """A line per reward, a column per strategy, and a legend of the marks."""
    names = [f"({p.name})" if not p.judged else p.name for p in PROBES]
    first = max(len(row.reward) for row in rows)
    heads = ["honest", *names]
    widths = [max(MIN_WIDTH, len(head) + 1) for head in heads]
    lines = [" " * first + "".join(f"{head:>{width + 1}}" for head, width in zip(heads, widths, strict=True))]
    for row in rows:
        cells = [f"{row.honest:.2f}", *(_cell(row, p.name) for p in PROBES)]
        columns = [f"{cell:>{width}}".ljust(width + 1) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{row.reward:{first}}" + "".join(columns))
    lines.append(
        f"! at least {GAMED_SHARE:.0%} of the honest baseline on the same references; (in parentheses: not judged)"
    )
    return "\n".join(line.rstrip() for line in lines)


def as_json(rows: Sequence[ProbeResult]) -> dict[str, Any]:
    """By reward: the honest baseline, and each strategy's value with the baseline on the same references."""
    return {
        row.reward: {
            "honest": row.honest,
            "strategies": {
                name: {"value": c.value, "honest": c.honest, "n": c.n, "judged": c.judged, "gamed": c.gamed}
                for name, c in row.cells.items()
            },
        }
        for row in rows
    }


def verdict(rows: Sequence[ProbeResult]) -> str:
    """One sentence on the gamed rewards and their strategies."""
    gamed = [f"{row.reward} by {', '.join(row.gamed_by)}" for row in rows if row.gamed_by]
    share = f"at least {GAMED_SHARE:.0%} of the honest baseline"
    return f"gamed ({share}): {'; '.join(gamed)}" if gamed else f"no judged strategy earns {share}"


def _cell(row: ProbeResult, name: str) -> str:
    cell = row.cells.get(name)
    if cell is None:
        return "-"
    return f"{cell.value:.2f}!" if cell.judged and cell.gamed else f"{cell.value:.2f}"
