from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from regraft.cli import main
from regraft.cli.guess import guess_text, parse_chunks
from regraft.cli.output import report_error
from regraft.config_file import load_config
from regraft.errors import ConflictError, InvalidError, NotFoundError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    output = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


def modules_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


HEAVY = {"xarray", "zarr", "pandas", "matplotlib", "prefect", "netCDF4", "dask", "numpy", "regraft._core"}


def test_importing_is_light() -> None:
    loaded = modules_after("import regraft")
    assert not loaded & (HEAVY | {"pydantic", "yaml", "rich", "typer"})


def test_help_is_light() -> None:
    loaded = modules_after("from regraft.cli import main\ntry: main(['zarr', '--help'])\nexcept SystemExit: pass")
    assert not loaded & (HEAVY | {"yaml"})


def test_a_sync_in_a_pipe_is_light(tmp_path: Path) -> None:
    """A shell script calls it once for each file: what is only for terminals and event loops stays unloaded."""
    (tmp_path / "in").mkdir()
    config = tmp_path / "empty.yaml"
    config.write_text("{name: empty, source: {url: in}, store: {url: out.zarr}, region: {key: time}}")
    command = f"from regraft.cli import main\ntry: main(['zarr', 'sync', {str(config)!r}])\nexcept SystemExit: pass"
    loaded = modules_after(command)
    assert "regraft._core" in loaded
    assert not loaded & (HEAVY - {"regraft._core"} | {"rich", "asyncio"})


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "zarr", "--help")
    assert code == 0
    verbs = "init plan apply sync remove status history provenance gaps verify retry submit drain watch unlock"
    assert set(verbs.split()) <= set(out.split())
    code, out, _ = run(capsys, "--help")
    assert {"zarr", "doctor", "demo", "schema"} <= set(out.split())


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "plan",
        "apply",
        "sync",
        "remove",
        "status",
        "history",
        "provenance",
        "gaps",
        "verify",
        "retry",
        "submit",
        "drain",
        "watch",
        "unlock",
    ],
)
def test_every_command_speaks_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "zarr", verb, "--help")
    assert code == 0
    assert "--json" in out


def test_usage_errors_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["zarr", "plan"], ["zarr", "plan", "a.yaml", "--nope"], ["tea"]):
        code, out, err = run(capsys, *words)
        assert code == 2
        assert out == ""
        assert "Usage" in err


def test_errors_are_short_and_have_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "zarr", "plan", "definition:agro")
    assert (code, out) == (1, "")
    assert err == "error: there is no ready-made collection `agro`\n\nhint: did you mean `argo`?\n"
    code, _, err = run(capsys, "zarr", "plan", "definition:agro", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_conflict_is_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(ConflictError("taken"), debug=False) == 5
    assert report_error(InvalidError("wrong"), debug=False) == 1
    assert capsys.readouterr().err == "error: taken\nerror: wrong\n"


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("regraft.cli.commands.app", interrupted)
    code, _, err = run(capsys, "doctor")
    assert code == 130
    assert "goes on from there" in err


def test_schema_to_stdout_and_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "schema", "collection")
    assert code == 0
    assert json.loads(out)["title"] == "CollectionConfig"
    target = tmp_path / "collection.schema.json"
    code, out, err = run(capsys, "schema", "-o", str(target))
    assert (code, out) == (0, "")
    assert "# yaml-language-server: $schema=collection.schema.json" in err
    assert json.loads(target.read_text())["properties"]["kind"]
    code, _, err = run(capsys, "schema", "tea")
    assert code == 1
    assert "`collection`" in err


def test_a_setting_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "zarr", "plan", "definition:sst", "--set", "store.url")
    assert code == 1
    assert "expected `KEY=VALUE`, found `store.url`" in err


def test_chunks_on_the_command_line() -> None:
    assert parse_chunks("time=1, lat=500,") == {"time": 1, "lat": 500}
    assert parse_chunks(None) == {}
    for wrong in ("time", "time=0", "time=x", "=3"):
        with pytest.raises(InvalidError, match=r"expected `NAME=LENGTH`"):
            parse_chunks(wrong)


GRID: dict[str, Any] = {
    "dimensions": {
        "time": {"size": 1, "unlimited": True},
        "lat": {"size": 4500, "unlimited": False},
        "lon": {"size": 6000, "unlimited": False},
    },
    "variables": [
        {"name": "time", "dtype": "int32", "dimensions": ["time"], "shape": [1], "attributes": {}},
        {"name": "lat", "dtype": "float32", "dimensions": ["lat"], "shape": [4500], "attributes": {}},
        {"name": "lon", "dtype": "float32", "dimensions": ["lon"], "shape": [6000], "attributes": {}},
        {
            "name": "sst",
            "dtype": "int16",
            "dimensions": ["time", "lat", "lon"],
            "shape": [1, 4500, 6000],
            "attributes": {"scale_factor": 0.01, "add_offset": 273.15},
        },
        {"name": "mask", "dtype": "int8", "dimensions": ["lat", "lon"], "shape": [4500, 6000], "attributes": {}},
        {"name": "odd one", "dtype": "compound", "dimensions": ["time"], "shape": [1], "attributes": {}},
    ],
}

PROFILE: dict[str, Any] = {
    "dimensions": [{"name": "N_PROF", "size": 2}, {"name": "N_LEVELS", "size": 71}, {"name": "STRING32", "size": 32}],
    "variables": [
        {"name": "DC_REFERENCE", "dtype": "char", "dimensions": ["N_PROF", "STRING32"], "shape": [2, 32]},
        {"name": "JULD", "dtype": "float64", "dimensions": ["N_PROF"], "shape": [2]},
        {"name": "PRES", "dtype": "float32", "dimensions": ["N_PROF", "N_LEVELS"], "shape": [2, 71]},
    ],
}


def guess(structure: dict[str, Any], file: str, key: str, folder: Path, **chunks: int) -> tuple[str, dict[str, Any]]:
    text = guess_text(
        structure, file=file, store=str(folder / "a b.zarr"), key=key, chunks=chunks, name=None, folder=folder
    )
    tree = yaml.safe_load(text)
    load_config(tree)
    return text, tree


def test_a_grid_is_guessed(tmp_path: Path) -> None:
    file = str(tmp_path / "in" / "20220105032000-ABOM-L3S_GHRSST-SSTskin-AVHRR_D-1d_day.nc")
    text, tree = guess(GRID, file, "time", tmp_path)
    assert tree["name"] == "a-b"
    assert tree["source"] == {"url": "in", "include": ["**/*-ABOM-L3S_GHRSST-SSTskin-AVHRR_D-1d_day.nc"]}
    assert tree["store"]["chunks"] == {"time": 1, "lat": 900, "lon": 1000}
    assert tree["store"]["shards"] == {"time": 30, "lat": 900, "lon": 1000}
    assert tree["region"] == {"key": "time", "axis": "sorted", "winner": "latest", "on_remove": "restore"}
    assert tree["variables"]["include"] == ["sst", "mask"]
    assert "1.8 MB before compression" in text
    assert "scale 0.01, offset 273.15" in text
    assert "stored once" in text
    assert "types that are not read: odd one" in text
    assert all(len(line) <= 120 for line in text.splitlines()[1:])


def test_profiles_are_guessed(tmp_path: Path) -> None:
    _, tree = guess(PROFILE, "s3://gdac/csiro/D5900865_001.nc", "DC_REFERENCE", tmp_path)
    assert tree["source"] == {"url": "s3://gdac/csiro/", "include": ["**/D*_*.nc"]}
    assert tree["region"]["dimension"] == "N_PROF"
    assert tree["region"]["axis"] == "arrival"
    assert tree["store"]["chunks"] == {"N_PROF": 1000, "N_LEVELS": 71}
    assert "shards" not in tree["store"]


def test_known_chunks_win(tmp_path: Path) -> None:
    _, tree = guess(GRID, str(tmp_path / "a.nc"), "time", tmp_path, lat=500, lon=500)
    assert tree["store"]["chunks"] == {"time": 1, "lat": 500, "lon": 500}
    assert tree["source"]["include"] == ["**/*.nc"]


def test_guesses_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no variable `tine`") as caught:
        guess(GRID, "a.nc", "tine", tmp_path)
    assert caught.value.hint == "did you mean `time`?"
    with pytest.raises(NotFoundError, match="has no dimension `lta`"):
        guess(GRID, "a.nc", "time", tmp_path, lta=3)
    scalar = {"dimensions": {}, "variables": [{"name": "a", "dtype": "int8", "dimensions": []}]}
    with pytest.raises(InvalidError, match="`a` has no dimension"):
        guess(scalar, "a.nc", "a", tmp_path)


def sample(path: Path, day: int, value: int = 5) -> Path:
    netcdf = pytest.importorskip("netCDF4")
    path.parent.mkdir(parents=True, exist_ok=True)
    with netcdf.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("lat", 4)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 2022-01-01"
        time[:] = [day]
        file.createVariable("lat", "f4", ("lat",))[:] = range(4)
        file.createVariable("sst", "i2", ("time", "lat"), fill_value=-1)[:] = [[value] * 4]
    return path


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    pytest.importorskip("regraft._core")
    for day in range(3):
        sample(tmp_path / "in" / f"2022010{day + 1}.nc", day)
    path = tmp_path / "sst.yaml"
    path.write_text("name: sst\nsource: {url: in}\nstore: {url: sst.zarr}\nregion: {key: time}\n")
    return path


def test_a_collection_from_the_command_line(
    collection: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "monday.plan.json"
    code, out, err = run(capsys, "zarr", "plan", str(collection), "--exit-code", "--json", "-o", str(saved))
    assert code == 3
    assert {change["action"] for change in json.loads(out)["changes"]} == {"append"}
    assert f"saved {saved}" in err

    code, out, _ = run(capsys, "zarr", "apply", str(saved))
    assert code == 0
    assert "append" in out
    code, out, _ = run(capsys, "zarr", "plan", str(collection), "--exit-code")
    assert code == 0
    assert "nothing to do" in out

    code, out, _ = run(capsys, "zarr", "status", str(collection), "--json")
    assert (code, json.loads(out)["axis_length"]) == (0, 3)
    code, out, _ = run(capsys, "zarr", "provenance", str(collection), "--index", "0", "--json")
    assert (code, json.loads(out)[0]["key"]) == (0, "20220101.nc")
    code, out, _ = run(capsys, "zarr", "provenance", str(collection), "--json")
    assert (code, len(json.loads(out))) == (0, 3)
    code, out, _ = run(capsys, "zarr", "verify", str(collection), "--json")
    assert (code, json.loads(out)["failed"]) == (0, [])
    code, out, _ = run(capsys, "zarr", "remove", str(collection), "20220102.nc", "--json")
    assert (code, json.loads(out)["changes"][0]["action"]) == (0, "blank")
    code, out, _ = run(capsys, "zarr", "gaps", str(collection), "--json")
    assert (code, json.loads(out)["count"]) == (0, 1)
    code, out, _ = run(capsys, "zarr", "history", str(collection), "--json")
    assert (code, len(json.loads(out))) == (0, 2)


def test_a_bad_file_is_4_and_can_be_tried_again(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = collection.parent / "in" / "20220104.nc"
    bad.write_bytes(b"not a NetCDF file")
    code, out, _ = run(capsys, "zarr", "sync", str(collection))
    assert code == 4
    assert "20220104.nc" in out
    sample(bad, 3)
    code, out, _ = run(capsys, "zarr", "retry", str(collection), "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "done")


def test_what_is_asked_for_is_settled(
    collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(collection)
    code, out, _ = run(capsys, "zarr", "submit", config, "20220101.nc", "notes.txt", "--json")
    assert code == 0
    assert (len(json.loads(out)["ids"]), json.loads(out)["ignored"]) == (1, ["notes.txt"])
    code, out, _ = run(capsys, "zarr", "status", config, "--json")
    assert (json.loads(out)["pending"], json.loads(out)["lease"]) == (1, None)
    lines = f"20220101.nc\n{collection.parent / 'in' / '20220102.nc'}\n\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    code, out, _ = run(capsys, "zarr", "submit", config, "-")
    assert code == 0
    assert "2 requests stored" in out
    code, out, _ = run(capsys, "zarr", "drain", config, "--json")
    assert (code, json.loads(out)["outcome"], json.loads(out)["settled"]) == (0, "done", 3)
    code, out, _ = run(capsys, "zarr", "drain", config)
    assert code == 0
    assert "nothing to do" in out

    code, out, _ = run(capsys, "zarr", "submit", config, "20220102.nc", "--removed", "--wait", "5", "--json")
    (settled,) = json.loads(out)["done"].values()
    assert (code, settled["outcome"]) == (0, "done")
    (collection.parent / "in" / "20220103.nc").write_bytes(b"no NetCDF")
    code, out, _ = run(capsys, "zarr", "submit", config, "20220103.nc", "--wait", "5")
    assert code == 4
    assert "quarantined" in out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'20220101.nc\n{"who": 1}\n')))
    code, out, err = run(capsys, "zarr", "submit", config, "-")
    assert code == 1
    assert "1 request stored" in out
    assert "found a mapping with `who`" in err


def test_the_right_to_write_is_taken_away(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "zarr", "unlock", str(collection))
    assert (code, out, err) == (
        0,
        "",
        "nobody holds the store; `--yes` gives up a backfill that is open all the same\n",
    )
    code, out, _ = run(capsys, "zarr", "unlock", str(collection), "--yes", "--json")
    assert (code, json.loads(out)["was"]) == (0, None)


def test_only_what_is_new_is_looked_at(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "zarr", "sync", str(collection))[0] == 0
    folder = collection.parent / "in"
    os.utime(sample(folder / "20220101.nc", 0, 7), (10**9, 10**9))
    sample(folder / "20220102.nc", 1, 8)
    (folder / "20220103.nc").unlink()
    for since in ("2h", "2020-01-01", "2020-01-01T00:00+05:00"):
        code, out, _ = run(capsys, "zarr", "plan", str(collection), "--since", since, "--json")
        changed = [(change["key"], change["action"]) for change in json.loads(out)["changes"]]
        assert (code, changed) == (0, [("20220102.nc", "overwrite")])
    code, out, err = run(capsys, "zarr", "sync", str(collection), "--since", "1D", "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "done")
    assert "removals are not found that way" in err
    code, out, _ = run(capsys, "zarr", "sync", str(collection), "--wait", "0", "--json")
    assert {change["key"]: change["action"] for change in json.loads(out)["changes"]} == {
        "20220101.nc": "overwrite",
        "20220103.nc": "blank",
    }
    code, _, err = run(capsys, "zarr", "plan", str(collection), "--since", "tea")
    assert code == 1
    assert "expected a time such as" in err
    code, _, err = run(capsys, "zarr", "plan", str(collection), "20220101.nc", "--since", "2h")
    assert code == 1
    assert "give one of the two" in err


def test_init_writes_a_file_that_works(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = collection.parent
    made = folder / "guessed.yaml"
    words = ["zarr", "init", str(folder / "in" / "20220101.nc"), "--store", str(folder / "g.zarr"), "--key", "time"]
    code, out, err = run(capsys, *words, "-o", str(made))
    assert (code, out) == (0, "")
    assert "regraft zarr plan" in err
    code, _, _ = run(capsys, "zarr", "sync", str(made))
    assert code == 0
    code, _, err = run(capsys, *words, "-o", str(made))
    assert code == 1
    assert "exists already" in err
    code, out, _ = run(capsys, *words, "--json")
    assert json.loads(out)["region"]["key"] == "time"


def test_doctor(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", str(collection), "--json")
    findings = {finding["what"]: finding for finding in json.loads(out)["findings"]}
    assert code == 0
    assert findings["python"]["state"] == "ok"
    assert findings["store"]["state"] == "ok"
    assert findings["put with If-Match"]["state"] == "ok"
    code, out, _ = run(capsys, "doctor", "definition:sst")
    assert code == 1
    assert "FAIL configuration" in out


def test_doctor_tries_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", str(tmp_path))
    assert code == 0
    for what in ("create-only put", "put with If-Match", "read back", "list", "rewrite", "delete"):
        assert f"ok   {what} " in out
    assert list(tmp_path.iterdir()) == []
    code, out, _ = run(capsys, "doctor", "http://127.0.0.1:9/x")
    assert code == 1
    assert "FAIL create-only put" in out
    code, out, _ = run(capsys, "doctor", "s4://x")
    assert code == 1
    assert "unknown scheme" in out
