"""Typed values from JSON and other files that this library or others wrote."""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from geovlm_ray.core.errors import DataError

T = TypeVar("T")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200


def validated(adapter: TypeAdapter[T], value: Any, where: object) -> T:
    """A value of the adapter's type; raises DataError, whose message begins with ``where``, if it has another form."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        is_missing = first["type"] == "missing"
        found = f"only {', '.join(map(repr, first['input'])) or 'none'}" if is_missing else _SHOWN.repr(first["input"])
        raise DataError(f"{where}: {f'{location}: ' if location else ''}{first['msg']}, found {found}") from error
