"""Strict YAML: the types of YAML 1.2's core schema, no key twice, environment variables as ``${NAME}``.

Texts are limited in length, and so are the values that repeated references to anchors and merge keys stand for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from geovlm_ray.core.errors import ConfigError

MAX_CHARS = 2**18
MAX_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TYPES = (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        "-+.0123456789",
    ),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<"), "<"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, in which ``no`` is false, ``2026-05-01`` a date, ``1e-5`` a text and ``1:30`` is 90."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in its base class

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._flattened: set[yaml.MappingNode] = set()
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace merge keys by what they refer to; raises ConstructorError for a key given twice, or too many."""
        if node in self._flattened:
            return
        self._flattened.add(node)
        seen: set[str] = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                self._count_merged(value)
            elif isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        super().flatten_mapping(node)

    def _count_merged(self, value: yaml.Node) -> None:
        for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if isinstance(node, yaml.MappingNode):
                self.flatten_mapping(node)
                self._merged += len(node.value)
            if self._merged > MAX_VALUES:
                problem = f"expected at most {MAX_VALUES:,} merged values, found more"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


for _name, _pattern, _first in _TYPES:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern.pattern})\Z"), list(_first))


def parse_yaml(text: str, where: str, *, variables: bool = True) -> Any:
    """The value of a YAML text; ``${NAME}`` in its texts is the environment variable, other dollar signs are literal.

    Without ``variables``, for texts from elsewhere, which must not read the environment, all dollar signs are literal.

    Raises:
        ConfigError: It is not YAML, too long, gives a key twice, or names a variable that is not set; ``where`` names
            it.
    """
    if len(text) > MAX_CHARS:
        raise ConfigError(f"{where}: expected at most {MAX_CHARS:,} characters of YAML, found {len(text):,}")
    try:
        return _Expansion(where, variables).of(yaml.load(text, _Loader))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


class _Expansion:
    """Copies of values with environment variables, if ``variables``, and without anchors."""

    def __init__(self, where: str, variables: bool) -> None:
        self.where = where
        self.variables = variables
        self.count = 0

    def of(self, value: Any) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise ConfigError(f"{self.where}: expected at most {MAX_VALUES:,} values, found more")
        if isinstance(value, str):
            return _VARIABLE.sub(self._variable, value) if self.variables else value
        if isinstance(value, Mapping):
            return {key: self.of(item) for key, item in value.items()}
        return [self.of(item) for item in value] if isinstance(value, list) else value

    def _variable(self, match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigError(
                f"{self.where}: expected the environment variable {name} of ${{{name}}}, found that it is not set"
            )
        return os.environ[name]
