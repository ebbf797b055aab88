"""Prefect: flows that make a store match its files, fill one, or migrate a data set, with one task for each shard.

Never one task for each file: a few thousand mapped tasks make a self-hosted Prefect server unstable (PrefectHQ/prefect
#18883), and a commit of many files touches every chunk once instead of many times. What a shard is depends on the flow:

- of `sync_collection`, a run of consecutive sources. Shards are applied one after the other, because a store has one
  writer; each plans its own keys again before it writes, so that a shard which is retried, or runs beside events from
  elsewhere, does what is right by then;
- of `backfill`, blocks of the axis, written side by side and published together;
- of `migrate`, files, which are independent of each other.

Retries ask the error, not its text: `retryable` is true for what may go well the next time. A file that cannot be used
is no error of a task: it is set aside, and stands in the artifact.

Secrets are no parameters, since Prefect shows those: the object stores read them from the environment of the worker.
"""

from __future__ import annotations

try:
    import prefect  # noqa: F401 - the first that needs it says how to get it
except ImportError as error:
    raise ImportError("regraft.flows needs Prefect: pip install 'regraft[prefect]'") from error

from regraft.flows.backfilling import backfill, backfill_shard, plan_backfill
from regraft.flows.migrating import migrate, migrate_shard, plan_migration
from regraft.flows.syncing import apply_shard, plan_collection, sync_collection

__all__ = [
    "apply_shard",
    "backfill",
    "backfill_shard",
    "migrate",
    "migrate_shard",
    "plan_backfill",
    "plan_collection",
    "plan_migration",
    "sync_collection",
]
