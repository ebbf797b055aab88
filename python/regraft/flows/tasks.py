"""What the tasks of all flows share: when they are tried again, and what their artifacts are called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from regraft.errors import RegraftError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

__all__ = ["PATIENT", "SHOWN", "Config", "artifact_key", "retryable"]

Config = str | dict[str, Any]

SHOWN = 100
"""Failed files that an artifact shows."""


def retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Whether a failed task may go well the next time, by the error itself."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RegraftError) and error.retryable


PATIENT: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": retryable,
}
"""Options of every task."""


def artifact_key(name: str) -> str:
    """The key of a flow's artifact.

    Args:
        name: Name of the collection or of the migration set.
    """
    return "regraft-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
