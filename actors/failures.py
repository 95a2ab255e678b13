"""Results of actor calls; Ray errors become errors of this package, which name the actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from geovlm_ray.core.errors import LostError, RunError, StartError, UserError

_LOST = (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    WorkerCrashedError,
)


def fetch(calls: Sequence[ray.ObjectRef], who: str, timeout_s: float | None = None) -> list[Any]:
    """Wait for calls and return their results in order; ``who`` names the actor in error messages.

    Raises:
        UserError: raised by the actor.
        StartError: the actor died in its constructor.
        LostError: the actor died, or the node that held a result, or ``timeout_s`` seconds passed.
        RunError: the call raised any other exception.
    """
    try:
        return ray.get(list(calls), timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        if isinstance(error.cause, _LOST):
            raise LostError(f"{who} lost an argument of its call: {_reason(error.cause)}") from error
        raise RunError(f"{who} failed: {error.cause!r}") from error
    except GetTimeoutError as error:
        raise LostError(f"{who} returned nothing within {timeout_s:g} s") from error
    except _LOST as error:
        kind = StartError if getattr(error, "actor_init_failed", False) else LostError
        raise kind(f"{who} died: {_reason(error)}") from error


def died_before_start(error: RunError) -> bool:
    """Whether an error of `fetch` means that the actor had not started: its node died, the actor is not the cause."""
    return isinstance(error.__cause__, ActorDiedError) and "The actor never ran" in str(error.__cause__)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line and "RayActorError" not in line]
    causes = [line for line in lines if line.startswith(("The actor died because its", "The actor is dead because"))]
    return [*lines[:1], *causes, *raised][-1]
