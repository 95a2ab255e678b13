"""``origin.json`` of an evaluation: the model and the record limit of its predictions."""

from __future__ import annotations

import json
from pathlib import Path

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import read_object, write_atomically

FILE = "origin.json"


def check_limit(limit: int | None, out: Path) -> None:
    """Check that a folder's predictions, if any, have the same maximum number of records per benchmark.

    Raises:
        ConfigError: they have another.
    """
    found = read_object(out / FILE).get("limit") if (out / FILE).is_file() else limit
    if found != limit:
        raise ConfigError(
            f"evaluation folder {out} holds predictions for {_records(found)} of each benchmark, expected "
            f"{_records(limit)} (--limit); choose another --out"
        )


def write_origin(model: str, limit: int | None, out: Path) -> None:
    """Write ``origin.json``; ``model`` is the name as given."""
    write_atomically(out / FILE, json.dumps({"model": model, "limit": limit}, indent=2) + "\n")


def _records(limit: object) -> str:
    return "all records" if limit is None else f"at most {limit} records"
