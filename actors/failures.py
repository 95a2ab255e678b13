"""Results of actor calls, with a dead or failing actor told apart and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
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


def fetch(calls: Sequence[ray.ObjectRef], who: str) -> list[Any]:
    """The results of calls, in order; waits for all.

    Raises:
        UserError: as the actor raised it.
        StartError: the actor did not get as far as its first call.
        LostError: the actor died, or the node that held a result.
        RunError: it failed in a way that no user error describes.
    """
    try:
        return ray.get(list(calls))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        if isinstance(error.cause, _LOST):
            raise LostError(f"{who} lost what it was given: {_reason(error.cause)}") from error
        raise RunError(f"{who} failed: {error.cause!r}") from error
    except _LOST as error:
        kind = StartError if getattr(error, "actor_init_failed", False) else LostError
        raise kind(f"{who} died: {_reason(error)}") from error


def never_ran(error: RunError) -> bool:
    """Whether an error of `fetch` tells of an actor that had not started yet: not it, but its node died."""
    return isinstance(error.__cause__, ActorDiedError) and "The actor never ran" in str(error.__cause__)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line and "RayActorError" not in line]
    causes = [line for line in lines if line.startswith(("The actor died because its", "The actor is dead because"))]
    return [*lines[:1], *causes, *raised][-1]
