"""`regraft demo`: the life of two collections on made files, in a few seconds, without a cloud and without keys.

The story is data: a list of events, each with what a producer of files does and what regraft is expected to do with it.
Every event is followed by a plain ``plan`` and ``apply``, as a user would call them; nothing here knows more than the
public API. At the end the stores are read with xarray and compared with the files that are left.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft import demo_sensors
from regraft.collections import Collection, open_collection
from regraft.demo_data import FIRST_DAY, SstGrid, day_name, write_profile, write_sst_day
from regraft.errors import CorruptError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from regraft.results import Report

__all__ = ["run"]

MARKER = ".regraft-demo"
DAYS = 7
LEVELS = 120

SST_CONFIG = """\
# A week of satellite days in one Zarr store: one day per chunk, so that a day which changes touches nothing else.
kind: zarr-collection
name: demo-sst
source: {url: sst-files, include: ["*.nc"]}
store: {url: sst.zarr, format: zarr3, chunks: {time: 1, lat: 90, lon: 120}}
region: {key: time, axis: sorted, winner: latest, on_remove: restore}
"""

ARGO_CONFIG = f"""\
# Float profiles of different depth in one store, found again by the data centre's reference.
extends: definition:argo
name: demo-argo
source: {{url: argo-files}}
store: {{url: argo.zarr, chunks: {{N_PROF: 10, N_LEVELS: {LEVELS}}}}}
variables: {{pad: {{N_LEVELS: {LEVELS}}}}}
"""

VERBS = {
    "append": "appended",
    "insert": "inserted",
    "fill_slot": "put into its slot",
    "overwrite": "overwritten",
    "restore": "earlier version brought back",
    "blank": "blanked",
    "runner_up": "kept as runner-up",
    "forget": "forgotten",
    "quarantine": "set aside",
}


@dataclass(frozen=True)
class Event:
    """Something that happens to the files of a collection."""

    arrived: str
    """What a reader of the table sees."""
    happen: Callable[[Path], object]
    """Does it, in the folder of the files."""
    expected: dict[str, int]
    """How many sources regraft must treat in which way."""


@dataclass
class Story:
    """A collection and what happens to it."""

    title: str
    config: str
    folder: str
    events: list[Event]
    rows: list[dict[str, Any]] = field(default_factory=list)


def run(directory: Path | None = None, json: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - the CLI's options
    """Runs the demo and prints what happened.

    Args:
        directory: Where files, stores and the picture go; ``regraft-demo`` in the current folder by default. An earlier
            demo there is replaced; anything else is left alone.
        json: Print the result as JSON on stdout, instead of tables.

    Returns:
        ``{"schema_version", "kind", "directory", "steps", "migration", "verified", "picture", "seconds"}``.

    Raises:
        InvalidError: The folder holds something else, or a package of the extra ``demo`` is missing.
        CorruptError: A store is not what the files say: a bug, worth a report.

    Example:
        >>> result = run(Path("regraft-demo"))  # doctest: +SKIP
    """
    _need_packages()
    started = time.perf_counter()
    folder = _fresh(directory or Path("regraft-demo"))
    grid = SstGrid()
    stories = [_satellite_story(grid), _float_story()]
    before: dict[int, NDArray[np.float64]] = {}
    for story in stories:
        if not json:
            _say(f"\n[bold]{story.title}[/bold]")
        collection = _begin(folder, story)
        for number, event in enumerate(story.events):
            story.rows.append(_step(collection, event, folder / story.folder))
            if story.folder == "sst-files" and number == 1:
                before = _days(collection)
        if not json:
            _print_table(story)
    sst, argo = (open_collection(folder / story.config) for story in stories)
    if not json:
        _say(f"\n[bold]{demo_sensors.TITLE}[/bold]")
    migrated = demo_sensors.play(folder)
    if not json:
        demo_sensors.print_table(migrated[0])
    verified = _verify_days(sst, folder / "sst-files", grid) + _verify_profiles(argo, folder / "argo-files")
    picture = _draw(folder, grid, before, _days(sst))
    result = {
        "schema_version": 1,
        "kind": "demo",
        "directory": str(folder),
        "steps": [{"collection": story.title, **row} for story in stories for row in story.rows],
        "migration": {
            "set": demo_sensors.TITLE,
            "steps": migrated[0],
            "verified": {"values": migrated[1], "equal": True},
        },
        "verified": {"values": verified + migrated[1], "equal": True},
        "picture": str(picture),
        "seconds": round(time.perf_counter() - started, 3),
    }
    if json:
        sys.stdout.write(dumps(result, ensure_ascii=False) + "\n")
    else:
        _print_end(folder, result)
    return result


def _satellite_story(grid: SstGrid) -> Story:
    """A week of days: in order, revised, late, broken, doubled, withdrawn."""

    def day(number: int, version: int = 1, **made: float) -> Callable[[Path], object]:
        return lambda folder: write_sst_day(folder / day_name(number, version), number, grid=grid, **made)

    def first_days(folder: Path) -> None:
        for number in (0, 1, 3):
            day(number)(folder)

    def broken_and_whole(folder: Path) -> None:
        day(6)(folder)
        day(5)(folder)
        path = folder / day_name(5)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def gone(number: int, version: int = 1) -> Callable[[Path], object]:
        return lambda folder: (folder / day_name(number, version)).unlink()

    return Story(
        "A week of satellite days (NetCDF-4, int16 packed) into one Zarr store",
        "sst.yaml",
        "sst-files",
        [
            Event("three days: 1, 2 and 4 January", first_days, {"append": 3}),
            Event("the next day, 5 January", day(4), {"append": 1}),
            Event("2 January again, revised", day(1, cover=0.06, correction=0.4), {"overwrite": 1}),
            Event("3 January, late", day(2), {"insert": 1}),
            Event("6 January, cut off in transfer, and 7 January", broken_and_whole, {"quarantine": 1, "append": 1}),
            Event("6 January, sent again", day(5), {"insert": 1}),
            Event("a second version of 4 January", day(3, version=2, cover=0.1, correction=-1.5), {"overwrite": 1}),
            Event("the second version is withdrawn", gone(3, version=2), {"restore": 1}),
            Event("5 January is withdrawn, nothing replaces it", gone(4), {"blank": 1}),
            Event("nothing new", lambda folder: folder, {}),
        ],
    )


def _float_story() -> Story:
    """Profiles of two floats, of different depth; one is checked later and replaced."""

    def profile(mode: str, platform: int, cycle: int, levels: int, correction: float = 0.0) -> Callable[[Path], object]:
        name = f"{mode}{platform}_{cycle:03d}.nc"
        return lambda folder: write_profile(
            folder / name, platform=platform, cycle=cycle, levels=levels, mode=mode, correction=correction
        )

    def arrivals(folder: Path) -> None:
        for platform, cycle, levels in ((5900001, 1, 60), (5900001, 2, 64), (5900002, 1, LEVELS)):
            profile("R", platform, cycle, levels)(folder)

    return Story(
        "Float profiles (classic CDF-1, ragged) into one Zarr store",
        "argo.yaml",
        "argo-files",
        [
            Event("three profiles of two floats", arrivals, {"append": 3}),
            Event("another profile", profile("R", 5900001, 3, 57), {"append": 1}),
            Event("the first profile, checked (delayed mode)", profile("D", 5900001, 1, 60, 0.02), {"overwrite": 1}),
        ],
    )


def _need_packages() -> None:
    missing = [
        name for name in ("duckdb", "matplotlib", "netCDF4", "pyarrow", "xarray", "zarr") if find_spec(name) is None
    ]
    if missing:
        raise InvalidError(f"the demo needs the packages `{', '.join(missing)}`", "pip install 'regraft[demo]'")


def _fresh(folder: Path) -> Path:
    """An empty folder of the demo; what an earlier demo left is removed, what somebody else left is not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / MARKER).is_file():
            raise InvalidError(
                f"`{folder}` is not empty, and no demo made it", "name a new folder: regraft demo --dir NEW"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("made by `regraft demo`, which may delete this folder\n")
    return folder


def _begin(folder: Path, story: Story) -> Collection:
    (folder / story.folder).mkdir()
    path = folder / story.config
    path.write_text(SST_CONFIG if story.folder == "sst-files" else ARGO_CONFIG)
    return open_collection(path)


def _step(collection: Collection, event: Event, files: Path) -> dict[str, Any]:
    """Lets an event happen, then plans and applies, and checks that regraft did what the story says."""
    event.happen(files)
    started = time.perf_counter()
    report = collection.plan().apply()
    milliseconds = (time.perf_counter() - started) * 1000
    done = dict.fromkeys(VERBS, 0)
    for change in report.changes:
        if change["action"] in done:
            done[change["action"]] += 1
    found = {action: count for action, count in done.items() if count}
    if found != event.expected:
        raise CorruptError(f"{event.arrived}: expected `{event.expected}`, found `{found}`", "please report it")
    written = report.get("written", {})
    usage = report.get("usage", {})
    return {
        "arrived": event.arrived,
        "did": _told(report),
        "actions": found,
        "chunks_written": written.get("chunks_written", 0),
        "chunks_read": written.get("chunks_read", 0),
        "chunks_moved": written.get("chunks_copied", 0),
        "chunks_dropped": written.get("chunks_dropped", 0),
        "requests": sum(usage.get(name, 0) for name in ("get", "head", "put", "delete", "list", "copy")),
        "milliseconds": round(milliseconds, 1),
    }


def _told(report: Report) -> str:
    """What regraft did, in words: `inserted as step 2`."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for change in report.changes:
        action = change["action"]
        if action == "quarantine":
            category = str(change.get("category") or "").replace("_", " ")
            parts.setdefault(f"{VERBS[action]}: {category}" if category else VERBS[action], [])
        elif action in VERBS:
            places = [(start, stop) for start, stop in change.get("indices") or []]
            parts.setdefault(VERBS[action], []).extend(places)
    return "; ".join(f"{verb}{_steps(places)}" for verb, places in parts.items()) or "nothing"


def _steps(places: list[tuple[int, int]]) -> str:
    """Ranges of steps, neighbours joined: `, step 4`, `, steps 0–2 and 5`."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        if joined and joined[-1][1] >= start:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    texts = [str(start) if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in joined]
    one = len(joined) == 1 and joined[0][1] == joined[0][0] + 1
    return f", step{'' if one else 's'} {' and '.join(texts)}" if texts else ""


def _days(collection: Collection) -> dict[int, NDArray[np.float64]]:
    """The days of the store in degrees Celsius; a blank day is NaN everywhere."""
    with collection.to_xarray() as dataset:
        numbers = (dataset["time"].values - np.datetime64(FIRST_DAY, "ns")) // np.timedelta64(1, "D")
        fields = dataset["sea_surface_temperature"].values - 273.15
    return {int(number): fields[index] for index, number in enumerate(numbers)}


def _verify_days(collection: Collection, files: Path, grid: SstGrid) -> int:
    """Compares the store with the files, raw value by raw value, as xarray reads both."""
    import xarray as xr

    compared = 0
    raw: dict[str, Any] = {"mask_and_scale": False, "decode_times": False}
    with collection.to_xarray(**raw) as store:
        _must(store.sizes["time"] == DAYS, f"{DAYS} days", f"{store.sizes['time']}")
        for index in range(DAYS):
            path = files / day_name(index)
            expected = xr.open_dataset(path, **raw) if path.exists() else None
            for name in ("sea_surface_temperature", "quality_level", "sses_bias"):
                found = store[name][index]
                want = expected[name][0].values if expected else np.full(grid.land.shape, found.attrs["_FillValue"])
                _must(np.array_equal(found.values, want), f"`{name}` of {path.name}", "other values in the store")
                compared += want.size
            if expected:
                _must(bool((store["lat"] == expected["lat"]).all()), "the files' `lat`", "another `lat`")
                expected.close()
    return compared


def _verify_profiles(collection: Collection, files: Path) -> int:
    """Compares every profile with the file that is to win, levels beyond its own depth with the fill value."""
    import xarray as xr

    compared = 0
    with collection.to_xarray(mask_and_scale=False, decode_times=False) as store:
        references = [
            bytes(np.asarray(text).astype("S32").item()).decode().strip() for text in store["DC_REFERENCE"].values
        ]
        for path in sorted(files.glob("*.nc")):
            if path.name.startswith("R") and (files / f"D{path.name[1:]}").exists():
                continue
            platform, cycle = path.stem[1:].split("_")
            index = references.index(f"{platform}/{int(cycle)}")
            with xr.open_dataset(path, mask_and_scale=False, decode_times=False) as source:
                for name in ("PRES", "TEMP", "PSAL"):
                    values = source[name][0].values
                    want = np.full(LEVELS, source[name].attrs["_FillValue"], dtype=values.dtype)
                    want[: values.size] = values
                    _must(np.array_equal(store[name][index].values, want), f"`{name}` of {path.name}", "other values")
                    compared += values.size
    return compared


def _must(holds: bool, expected: str, found: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise CorruptError(
            f"the store does not match its files: expected {expected}, found {found}", "please report it"
        )


def _draw(folder: Path, grid: SstGrid, before: dict[int, Any], after: dict[int, Any]) -> Path:
    from regraft.demo_picture import draw_days

    titles = [f"{1 + day} January" for day in range(DAYS)]
    notes = {
        1: "revised: fewer clouds",
        2: "late, inserted",
        3: "replaced, then\nbrought back",
        4: "withdrawn, blanked",
        5: "broken, set aside,\nthen sent again",
        6: "appended",
    }
    states = [("after two events", before), ("after all ten", after)]
    return draw_days(folder / "before-after.png", grid, titles, states, notes)


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text)


def _print_table(story: Story) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what arrived")
    table.add_column("what regraft did")
    for name in ("chunks", "requests", "ms"):
        table.add_column(name, justify="right")
    for row in story.rows:
        chunks = [f"{row['chunks_written']} written"] if row["chunks_written"] else []
        chunks += [f"{row['chunks_moved']} moved"] if row["chunks_moved"] else []
        chunks += [f"{row['chunks_dropped']} dropped"] if row["chunks_dropped"] else []
        cost = (", ".join(chunks) or "–", str(row["requests"]), f"{row['milliseconds']:.0f}")
        table.add_row(row["arrived"], row["did"], *cost)
    Console(highlight=False).print(table)


def _print_end(folder: Path, result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"\n[bold]Equal[/bold] to the files that are left, read with xarray and pyarrow: "
        f"{result['verified']['values']:,} values."
    )
    console.print(f"[bold]Picture[/bold]  {result['picture']}")
    console.print(f"[bold]Took[/bold]     {result['seconds']:.1f} s, the making of the files included\n")
    console.print("Try next:")
    console.print(f"  regraft zarr history {folder / 'sst.yaml'}")
    console.print(f"  regraft zarr provenance {folder / 'sst.yaml'}")
    console.print(f"  regraft parquet plan {folder / 'sensors.yaml'}")
    console.print(f"  rm {folder / 'sst-files' / day_name(6)} && regraft zarr plan {folder / 'sst.yaml'}")
