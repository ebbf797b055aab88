"""What a collection does in shards: one plan, written by many workers that do not touch one another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from regraft.progress import ProgressOption, reporter
from regraft.results_backfill import ShardPlan, ShardReport
from regraft.seam import enter, in_thread

if TYPE_CHECKING:
    from regraft import _core
    from regraft._core import CancelToken
    from regraft.results import Plan

__all__ = ["CollectionBackfill"]


class CollectionBackfill:
    """The verbs of a backfill; `regraft.Collection` has them."""

    _core: _core.Collection

    @property
    def name(self) -> str:
        """The collection's name."""
        raise NotImplementedError

    def plan_shard(self, plan: Plan, number: int, count: int) -> ShardPlan:
        """Says what `apply_shard` would do: the worker's blocks of the axis, its sources, its chunks; writes nothing.

        Workers that each plan for themselves over the same files agree, also while one of them is at work. A file that
        arrives or changes between two plans makes them different, and the second is refused: then give all workers one
        saved plan.

        Args:
            plan: From `plan`, or `Plan.load`; it may neither move labels nor remove sources.
            number: Which shard, from 1.
            count: How many there are; the same for all workers.

        Returns:
            The shard. It can be printed, saved and applied, as a plan can.

        Raises:
            InvalidError: The plan cannot be cut, or there is no such shard.
            ConflictError: The store was changed since the plan was made, or another backfill is open.
            UnavailableError: The object store did not answer.

        Example:
            >>> collection.plan().shard(3, 16).blocks  # doctest: +SKIP
            [(120, 180)]
        """
        enter()
        return ShardPlan(json.loads(self._core.plan_shard(plan.to_json(), number, count)), plan)

    def apply_shard(self, plan: Plan, number: int, count: int, *, progress: ProgressOption = None) -> ShardReport:
        """Does one shard of a plan; whoever does the last one publishes the whole in one commit.

        The shards are chunk-aligned blocks along the axis, so that workers on any number of machines write at the same
        time. Each may be done twice, or again after it died. While a backfill is open nobody else commits: events wait.
        `unlock` gives up one that nobody finishes.

        Args:
            plan: The same for all workers, best one that was saved; it may neither move labels nor remove sources.
            number: Which shard, from 1.
            count: How many there are; the same for all workers.
            progress: As in `plan`.

        Returns:
            What this worker wrote, which shards are not done, and the report of the whole where it published it.

        Raises:
            InvalidError: The plan cannot be cut, or there is no such shard.
            ConflictError: The store was changed since the plan was made, or another backfill is open.
            UnavailableError: The object store did not answer: call it again.

        Example:
            >>> plan = regraft.Plan.load("years.plan.json")  # doctest: +SKIP
            >>> plan.apply_shard(3, 16).outcome  # doctest: +SKIP
            'written'
        """
        return self._apply_shard(plan, number, count, progress, None)

    async def apply_shard_async(
        self, plan: Plan, number: int, count: int, *, progress: ProgressOption = None
    ) -> ShardReport:
        """Like `apply_shard`, for a running event loop; cancelling stops it, and the shard can be done again."""
        return await in_thread(lambda token: self._apply_shard(plan, number, count, progress, token))

    def _apply_shard(
        self, plan: Plan, number: int, count: int, progress: ProgressOption, token: CancelToken | None
    ) -> ShardReport:
        enter()
        with reporter(progress, f"apply {self.name} {number}/{count}") as tell:
            done = self._core.apply_shard(plan.to_json(), number, count, tell, token)
            return ShardReport({"collection": self.name, **json.loads(done)})
