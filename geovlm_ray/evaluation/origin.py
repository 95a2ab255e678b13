"""``origin.json`` of an evaluation: the model and the record limit of its predictions."""

from __future__ import annotations

import json
from pathlib import Path

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import digest_of, read_object, write_atomically

FILE = "origin.json"


def origin_of(name: str, model: Path, limit: int | None) -> dict[str, str | int | None]:
    """The model's name as given, a digest of its weights, and the maximum number of records per benchmark."""
    return {"model": name, "weights": digest_of(model.glob("*.safetensors")), "limit": limit}


def check_origin(origin: dict[str, str | int | None], out: Path) -> None:
    """Check that a folder's predictions, if any, have the same origin.

    Raises:
        ConfigError: they come from other weights, or have another record limit.
    """
    if not (out / FILE).is_file():
        return
    found = read_object(out / FILE)
    if found.get("weights") != origin["weights"]:
        model = f"{found.get('model')}{' with other weights' if found.get('model') == origin['model'] else ''}"
        raise ConfigError(f"evaluation folder {out} holds predictions of the model {model}; choose another --out")
    if found.get("limit") != origin["limit"]:
        raise ConfigError(
            f"evaluation folder {out} holds predictions for {_records(found.get('limit'))} of each benchmark, expected "
            f"{_records(origin['limit'])} (--limit); choose another --out"
        )


def write_origin(origin: dict[str, str | int | None], out: Path) -> None:
    """Write ``origin.json``."""
    write_atomically(out / FILE, json.dumps(origin, indent=2) + "\n")


def _records(limit: object) -> str:
    return "all records" if limit is None else f"at most {limit} records"
