"""Redaction of secret environment variables and URL passwords from logs."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASSW|PASS(_|$)|CREDENTIAL|(^|_)AUTH(_|$)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
_MIN_SECRET_CHARS = 6
"""Shorter values are not redacted: they would match unrelated text."""


def has_password(url: str) -> bool:
    """Whether a URL contains a password."""
    return _PASSWORD.search(url) is not None


def without_secrets(text: str) -> str:
    """The text with values of secret environment variables replaced by their names, and URL passwords removed."""
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET_CHARS and _NAME.search(name):
            text = text.replace(value, f"[{name}]")
    return _PASSWORD.sub(r"\1:[password]@", text)
