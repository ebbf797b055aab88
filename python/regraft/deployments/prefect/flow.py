"""The flow: one task for each shard of the plan, never one for each file."""

from regraft.flows import sync_collection

__all__ = ["sync_collection"]
