"""Real processes that work on one collection at once, each told what to do by lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

PATIENCE = 120.0
"""Seconds that an answer may take, on a machine that compiles beside."""

LONG = bool(os.environ.get("REGRAFT_LONG"))
"""Whether the long form of a proof is wanted: hours of a server's life in minutes, with the counts printed."""


class Worker:
    """A process with a collection of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def tell(self, verb: str, **arguments: Any) -> None:
        """Gives it something to do, and does not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self, patience: float = PATIENCE) -> dict[str, Any]:
        """What became of it."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        assert ready, f"process {self.process.pid} gave no answer within {patience} s"
        line = self.process.stdout.readline()
        assert line, f"process {self.process.pid} died: {self.process.poll()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Both."""
        self.tell(verb, **arguments)
        return self.answer()

    def send(self, number: signal.Signals) -> None:
        """Stops, continues or kills it."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Kills it where it still lives."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                # What it never read may still be in the pipe.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def started(count: int) -> Iterator[list[Worker]]:
    """So many workers, until the block is left."""
    workers = [Worker() for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()


def tried(collection: Any, task: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Does what is asked for, again as long as another writer was faster; the report, and how often it was tried."""
    import regraft

    keys, removed = task.get("keys", []), task.get("removed", [])
    for count in range(1, 200):
        try:
            if task["verb"] == "sync":
                return collection.sync(progress=False).to_dict(), count
            if task["verb"] == "apply":
                return collection.plan([*keys, *removed], progress=False).apply(progress=False).to_dict(), count
            if task["verb"] == "drain":
                return collection.drain(wait=task.get("wait"), progress=False).to_dict(), count
            raise AssertionError(task["verb"])
        except regraft.ConflictError:
            if not task.get("persistent", True):
                raise
            time.sleep(0.01)
    raise AssertionError("another writer was faster each time")


def main() -> None:
    """The process itself."""
    import regraft

    collection: Any = None
    for line in sys.stdin:
        task = json.loads(line)
        began = time.monotonic()
        try:
            if task["verb"] == "open":
                options = task["storage_options"]
                collection = regraft.open_collection(task["config"], storage_options=options)
                found: dict[str, Any] = {"opened": collection.name}
            else:
                if task.get("submit"):
                    collection.submit(task["submit"])
                report, tries = tried(collection, task)
                found = {"outcome": report["outcome"], "commits": report["commits"], "tries": tries}
        except regraft.RegraftError as error:
            found = {"error": error.kind, "message": str(error)}
        sys.stdout.write(json.dumps({**found, "seconds": time.monotonic() - began}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
