"""Counters with bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_NAMES = 50_000
MAX_NAME_LENGTH = 100


@dataclass
class Tally:
    """Counts of the first `MAX_NAMES` distinct names."""

    names: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, count: int = 1) -> None:
        """Count a name, truncated to `MAX_NAME_LENGTH` characters."""
        name = name[:MAX_NAME_LENGTH]
        if name in self.names or len(self.names) < MAX_NAMES:
            self.names[name] += count

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for name, count in other.names.items():
            self.add(name, count)

    def ranked(self) -> list[tuple[str, int]]:
        """Names with their counts, by descending count, then by name."""
        return sorted(self.names.items(), key=lambda item: (-item[1], item[0]))


@dataclass
class Findings:
    """Findings by kind: count and first example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count findings of a kind; the first example is kept."""
        if count:
            self.counts[kind] += count
            self.examples.setdefault(kind, example)

    def merge(self, other: Findings) -> None:
        """Add later findings."""
        for kind, count in other.counts.items():
            self.add(kind, other.examples[kind], count)
