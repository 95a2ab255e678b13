"""Names of actors, by which people find them in Ray's tools and in the run directory."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def next_name(kind: str) -> str:
    """A name that no other actor of this process had: one that replaces a dead one may start before that is gone."""
    return f"{kind}-{next(_numbers[kind])}"
