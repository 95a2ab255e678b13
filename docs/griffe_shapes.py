"""Extension of Griffe: shapes in docstrings, such as ``[samples][T]``, are no links."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SHAPE = re.compile(r"\[([^\[\]`]+)\](?=\[)")


class EscapeShapes(griffe.Extension):
    """Escapes the brackets of shapes."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _SHAPE.sub(r"\\[\1\\]", obj.docstring.value)
