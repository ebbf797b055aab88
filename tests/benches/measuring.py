"""Clocks of the benches: wall, CPU and peak memory, medians, and what a process costs as a whole."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Cost:
    """Medians of several runs."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of user and system time, all threads."""
    runs: int
    peak: float = 0.0
    """Largest resident memory of the process so far, MB."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measured(work: Callable[[], object], prepare: Callable[[int], object], runs: int, warm_ups: int = 1) -> Cost:
    """Runs `work` after `prepare(number)`, which is not measured; warm-ups do not count."""
    walls, cpus = [], []
    for number in range(runs + warm_ups):
        prepare(number)
        os.sync()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if number >= warm_ups:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    return Cost(statistics.median(walls), statistics.median(cpus), runs, peak_memory())


def peak_memory() -> float:
    """Largest resident memory of this process, MB; `ru_maxrss` would count the parent's, from before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole_process(arguments: list[str], prepare: Callable[[int], object], runs: int, *, bytecode: bool) -> Cost:
    """The cost of a command from the shell: start, imports and all.

    `bytecode` says whether Python finds its modules compiled, as an installation leaves them, or compiles them at each
    start, as in an image without. The first run does not count.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if not bytecode:
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": os.devnull}
    walls, cpus = [], []
    for number in range(runs + 1):
        prepare(number)
        os.sync()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = time.perf_counter()
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
        walls.append(time.perf_counter() - wall)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return Cost(statistics.median(walls[1:]), statistics.median(cpus[1:]), runs)


def in_child(arguments: list[str]) -> dict[str, Any]:
    """Runs a bench as a worker in a process of its own and reads the JSON on its last line."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def table(title: str, rows: list[tuple[str, ...]], heads: tuple[str, ...]) -> str:
    """A plain table: first column left, the others right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [title]
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
