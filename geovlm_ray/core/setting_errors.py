"""Errors of pydantic in a configuration, as messages that name the key and what was meant."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from geovlm_ray.core.errors import did_you_mean

MAX_HINTS = 3


def explain(
    error: Mapping[str, Any],
    source: str,
    root: type[BaseModel],
    *,
    renamed: Mapping[str, str],
    refused: Mapping[str, str],
    synonyms: Mapping[str, str],
) -> str:
    """The message for an error of a configuration of type ``root`` that was read from ``source``.

    ``renamed`` maps former keys to present ones, ``refused`` keys that there are not to the reason, ``synonyms`` names
    of other libraries, without a section, to keys.
    """
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        if not isinstance(error.get("input"), (dict, BaseModel)) and ", found " not in message:
            message += f", found {error['input']!r}"
        # Checks of a whole section begin with the field that they are about.
        separator = "." if message.partition(":")[0].partition("=")[0] in _fields(root, location) else ": "
        return f"{source}: {key}{separator if key else ''}{message}"
    if key in renamed:
        return f"{source}: unknown key {key!r}; it is now {renamed[key]!r}"
    if key in refused:
        return f"{source}: unknown key {key!r}; {refused[key]}"
    fields = _fields(root, location[:-1])
    meant = synonyms.get(location[-1], "").rpartition(".")[2]
    hint = did_you_mean(meant if meant in fields else location[-1], fields) or _keys_hint(location[-1], root, synonyms)
    return f"{source}: unknown key {key!r}{hint or '; expected one of ' + ', '.join(fields)}"


def _keys_hint(name: str, root: type[BaseModel], synonyms: Mapping[str, str]) -> str:
    """Keys of any section that are named like an unknown one, or described in its words."""
    if name in synonyms:
        return f"; did you mean {synonyms[name]!r}?"
    described = dict(_descriptions(root, ""))
    words = re.compile(rf"\b{re.escape(name).replace('_', ' ')}\b", re.IGNORECASE)
    close = [key for key in described if key.rpartition(".")[2] == name] or [
        key for key, text in described.items() if words.search(text)
    ][:MAX_HINTS]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else did_you_mean(name, described)


def _descriptions(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Each key of a configuration, those of a section that may be null included, with its description."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _descriptions(field.annotation, f"{prefix}{name}.")
            continue
        yield prefix + name, field.description or ""
        if get_origin(field.annotation) in (Union, types.UnionType):
            for section in get_args(field.annotation):
                if isinstance(section, type) and issubclass(section, BaseModel):
                    yield from _descriptions(section, f"{prefix}{name}.")


def _fields(root: type[BaseModel], path: list[str]) -> list[str]:
    """Keys of a section, or of the sections in a list or mapping; empty if the path leads to a value."""
    model: Any = root
    for part in path:
        if part not in model.model_fields:
            # An index of a list, or a key of a mapping.
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
