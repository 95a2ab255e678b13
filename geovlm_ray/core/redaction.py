"""What is kept from logs and from users' code: variables named after secrets, and passwords in URLs."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASSW|PASS(_|$)|CREDENTIAL|(^|_)AUTH(_|$)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
_SHORTEST = 6
"""Shorter values are no secrets, and would be found in any text."""


def is_secret(variable: str) -> bool:
    """Whether the name of an environment variable speaks of a secret."""
    return _NAME.search(variable) is not None


def has_password(url: str) -> bool:
    """Whether a URL names a user with a password."""
    return _PASSWORD.search(url) is not None


def without_secrets(text: str) -> str:
    """A text in which names stand for the values of this process's secret variables, and URLs have no password."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and is_secret(name):
            text = text.replace(value, f"[{name}]")
    return _PASSWORD.sub(r"\1:[password]@", text)
