"""Counts over any number of records in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_NAMES = 50_000
LONGEST_NAME = 100


@dataclass
class Tally:
    """How often names occur; once there are `MOST_NAMES`, further ones are counted together as ``others``."""

    names: Counter[str] = field(default_factory=Counter)
    others: int = 0

    @property
    def total(self) -> int:
        """Everything counted."""
        return self.names.total() + self.others

    def add(self, name: str, count: int = 1) -> None:
        """Count a name; of a long one its beginning."""
        name = name[:LONGEST_NAME]
        if name in self.names or len(self.names) < MOST_NAMES:
            self.names[name] += count
        else:
            self.others += count

    def merge(self, other: Tally) -> None:
        """Take in another tally."""
        for name, count in other.names.items():
            self.add(name, count)
        self.others += other.others

    def ranked(self) -> list[tuple[str, int]]:
        """Names with their counts, the most frequent first, then by name."""
        return sorted(self.names.items(), key=lambda item: (-item[1], item[0]))


@dataclass
class Findings:
    """Kinds of findings with their counts and each one's first example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a finding."""
        if count:
            self.counts[kind] += count
            self.examples.setdefault(kind, example)

    def merge(self, other: Findings) -> None:
        """Take in later findings."""
        for kind, count in other.counts.items():
            self.add(kind, other.examples[kind], count)
