"""Errors that a user can act on. Messages state what was expected and what was found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix; the command line prints its message without a traceback."""

    exit_code = 1


class ConfigError(UserError):
    """Invalid configuration key or value."""


class DataError(UserError):
    """Invalid record, image or dataset file."""


class ModelError(UserError):
    """Unusable model folder."""


class RunError(UserError):
    """A run cannot start or continue because of a directory, port, resource or component."""


class PartialStepError(RunError):
    """A step failed after some of its updates: the weights are those of no step and must not be saved."""


class StuckError(RunError):
    """A run has learnt nothing for many steps; it can be resumed from its checkpoint."""

    exit_code = 3


class LostError(RunError):
    """A component died, or its state is needed after it died."""


class StartError(LostError):
    """A component died during start-up; restarting it would fail again."""


UNREADABLE = (
    DataError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    OSError,
)
"""Exceptions that malformed content can cause in a reader."""


def reason_of(error: BaseException) -> str:
    """The message of an error on one line, after its type if it is none of ours."""
    message = " ".join(str(error).split())
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"


def did_you_mean(name: str, known: Iterable[str], similarity: float = 0.6) -> str:
    """``; did you mean 'X'?``, where X is the known name closest to ``name``; empty if none is as similar (0 to 1)."""
    close = difflib.get_close_matches(name, list(known), 1, similarity)
    return f"; did you mean {close[0]!r}?" if close else ""


def expected_one_of(known: Iterable[str], found: object) -> str:
    """``expected one of A, B, found 'X'; did you mean 'A'?``."""
    names = list(known)
    hint = did_you_mean(found, names) if isinstance(found, str) else ""
    return f"expected one of {', '.join(names)}, found {found!r}{hint}"
