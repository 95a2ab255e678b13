"""Names of actors, by which people find them in Ray's tools."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

_numbers: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(itertools.count)


def actor_name(run: str, kind: str) -> str:
    """A name that no other actor of this process had: one that replaces a dead one may start before that is gone."""
    return f"{run}-{kind}-{next(_numbers[run, kind])}"
