"""Actor names, as shown by Ray's tools and used in the run directory."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def next_name(kind: str) -> str:
    """A name that is unique in this process: a replacement may start before the dead actor is gone."""
    return f"{kind}-{next(_numbers[kind])}"
