"""Settings with their types, ranges, defaults and descriptions, as YAML and as a reference in Markdown."""

from __future__ import annotations

import json
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from geovlm_ray.config import Config, load_config, recipe_names

WIDTH = 118
SIGNS = {annotated_types.Ge: (">=", "ge"), annotated_types.Gt: (">", "gt")} | {
    annotated_types.Le: ("<=", "le"),
    annotated_types.Lt: ("<", "lt"),
}
"""Limits of a value, and the attribute that has the limit."""
NAMES = {int: "integer", float: "number", bool: "true | false", str: "text", type(None): "null"}
REQUIRED = "required"
"""In place of the default of a setting that has none."""
HEADER = ["| key | type | default | description | set by |", "| --- | --- | --- | --- | --- |"]
PAGE = """# Settings

Every key of a recipe or YAML file, and of `section.key=value` on the command line. `geovlm-ray config RECIPE` prints
the values of a recipe with these descriptions, `--grep WORD` those about a word, `--diff RECIPE` the differences from
another recipe. "Set by" names the recipes that change a default, with their value.

"""


@dataclass(frozen=True)
class Setting:
    """A key ``section.name``; ``kind`` is its type with its range as text.

    ``entries`` are the settings in its value, such as ``data.stages[].steps``: of a section that may be null, of each
    section in a list, or of each in a mapping.
    """

    key: str
    kind: str
    default: Any
    description: str
    entries: tuple[Setting, ...] = ()


def settings() -> list[Setting]:
    """All settings, in the order of the configuration."""
    return list(_settings(Config, ""))


def _settings(section: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        key, kind = prefix + name, field.annotation
        if _is_section(kind):
            yield from _settings(kind, f"{key}.")
            continue
        default = REQUIRED if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))
        yield Setting(key, _kind(field), default, field.description or "", tuple(_entries(key, kind)))


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _entries(key: str, kind: Any) -> Iterator[Setting]:
    """The settings of sections in the value of a setting."""
    suffix = {tuple: "[]", dict: ".NAME"}.get(get_origin(kind), "")
    for section in filter(_is_section, get_args(kind)):
        yield from _settings(section, f"{key}{suffix}.")


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for kind, (sign, name) in SIGNS.items()
        if isinstance(limit, kind)
    ]
    return " ".join([_type_name(field.annotation), ", ".join(limits)]).strip()


def _type_name(kind: Any) -> str:
    """A type as users write its values: ``number``, ``a | b``, ``list of text``."""
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        return " | ".join(map(_plain, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(_type_name, arguments)))
    if origin in (tuple, list):
        each = " and ".join(dict.fromkeys(_type_name(a) for a in arguments if a is not ...))
        count = "list" if ... in arguments or origin is list else len(arguments)
        return f"{count} of {each}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    return _type_name(arguments[0]) if hasattr(kind, "__metadata__") else NAMES.get(kind, "mapping")


def as_yaml(config: Config, chosen: Callable[[Setting], bool], notes: Mapping[str, str] | None = None) -> str:
    """The chosen settings as YAML that `load_config` reads, each below a comment with its description and type.

    ``notes`` by key stand behind values.
    """
    values, lines = flat_values(config), []
    open_sections: list[str] = []
    for setting in filter(chosen, settings()):
        *path, name = setting.key.split(".")
        for depth, section in enumerate(path):
            if open_sections[: depth + 1] != path[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        open_sections, indent = path, "  " * len(path)
        text = f"{setting.description} ({setting.kind})" if setting.description else setting.kind
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        for entry in setting.entries:
            entry_text = f"{entry.key}: {entry.description} ({entry.kind}; default: {_plain(entry.default)})"
            lines += textwrap.wrap(
                entry_text, WIDTH, initial_indent=f"{indent}#   ", subsequent_indent=f"{indent}#     "
            )
        note = f"  # {notes[setting.key]}" if notes and setting.key in notes else ""
        lines.append(f"{indent}{name}: {_plain(values[setting.key])}{note}")
    return "".join(f"{line}\n" for line in lines)


def flat_values(config: Config) -> dict[str, Any]:
    """Values of a configuration by the keys of `settings`."""
    dumped = config.model_dump(mode="json")
    found = {}
    for setting in settings():
        value: Any = dumped
        for name in setting.key.split("."):
            value = value[name]
        found[setting.key] = value
    return found


def differences(config: Config, other: Config) -> dict[str, Any]:
    """Values of ``other`` by the keys in which the two differ."""
    ours, theirs = flat_values(config), flat_values(other)
    return {key: theirs[key] for key in ours if ours[key] != theirs[key]}


def reference() -> str:
    """A Markdown table for each section: key, type, default, description, and the recipes that change it."""
    by_recipe = {name: differences(Config(), load_config(name)) for name in recipe_names()}
    parts = HEADER.copy()
    last = ""
    for setting in settings():
        section = setting.key.rpartition(".")[0].partition(".")[0]
        if section != last:
            parts += [f"\n## {section}\n", *HEADER]
            last = section
        for each in (setting, *setting.entries):
            changed = [f"{name} ({_cell(found[each.key])})" for name, found in by_recipe.items() if each.key in found]
            row = [f"`{each.key}`", _escaped(each.kind), _cell(each.default), _escaped(each.description)]
            parts.append(f"| {' | '.join([*row, ', '.join(changed)])} |")
    return "\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    return f"`{_escaped(_plain(value))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, str):
        text = yaml.safe_dump(value, width=10**6).strip().removesuffix("\n...").strip()
        return json.dumps(value, ensure_ascii=False) if "\n" in text else text
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False)


def is_about(setting: Setting, word: str) -> bool:
    """Whether the key or description of a setting, or of one of its entries, contains a word, in any case."""
    return any(word.lower() in f"{each.key} {each.description}".lower() for each in (setting, *setting.entries))


if __name__ == "__main__":
    sys.stdout.write(PAGE + reference())
