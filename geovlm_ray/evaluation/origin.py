"""``origin.json`` of an evaluation: whose answers it holds, and to how many records of each benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import digest_of, read_object, write_atomically

FILE = "origin.json"


def origin_of(name: str, model: Path, limit: int | None) -> dict[str, str | int | None]:
    """A model by the name that it was given and by a digest of its weights, and the most records of a benchmark."""
    return {"model": name, "weights": digest_of(model.glob("*.safetensors")), "limit": limit}


def check_origin(origin: dict[str, str | int | None], out: Path) -> None:
    """Compare with what the answers in a folder are of, if it holds any.

    Raises:
        ConfigError: they are those of other weights, or to another number of records.
    """
    if not (out / FILE).is_file():
        return
    found = read_object(out / FILE)
    if found.get("weights") != origin["weights"]:
        whose = f"the model {found.get('model')}"
        if found.get("model") == origin["model"]:
            whose += " as it was then; its weights are others now"
        raise ConfigError(f"evaluation folder {out} holds answers of {whose}; choose another --out")
    if found.get("limit") != origin["limit"]:
        raise ConfigError(
            f"evaluation folder {out} holds answers to {_records(found.get('limit'))} of each benchmark, asked for are "
            f"{_records(origin['limit'])} (--limit); choose another --out"
        )


def write_origin(origin: dict[str, str | int | None], out: Path) -> None:
    """Write it down."""
    write_atomically(out / FILE, json.dumps(origin, indent=2) + "\n")


def _records(limit: object) -> str:
    return "all records" if limit is None else f"at most {limit} records"
