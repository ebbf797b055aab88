from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from regraft.config import CollectionConfig, core_json, parse_duration, parse_size
from regraft.config_file import load_config, merge, parse_overrides, public_config
from regraft.errors import InvalidError, NotFoundError
from regraft.schema import collection_schema, modeline, schema_text

MINIMAL: dict[str, Any] = {
    "kind": "zarr-collection",
    "name": "sst",
    "source": {"url": "s3://bucket/sst/"},
    "store": {"url": "s3://lab/sst.zarr"},
    "region": {"key": "time"},
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_the_core_gets_every_default() -> None:
    tree = json.loads(core_json(load_config(MINIMAL)))
    assert tree["source"] == {
        "url": "s3://bucket/sst/",
        "storage_options": {},
        "include": ["**/*.nc"],
        "exclude": [],
    }
    assert tree["store"] == {
        "url": "s3://lab/sst.zarr",
        "storage_options": {},
        "format": "zarr3",
        "chunks": {},
        "codec": "zstd",
        "empty_chunks": "drop",
    }
    assert tree["region"] == {
        "key": "time",
        "axis": {"policy": "sorted"},
        "winner": "latest",
        "on_remove": "restore",
    }
    assert tree["variables"] == {
        "include": [],
        "exclude": [],
        "pad": {},
        "missing": "fill",
        "packing": {},
        "strings": "fixed",
    }
    assert tree["guards"] == {"structure": "error", "shrink": "error"}
    assert tree["run"] == {
        "memory": 2 * 1024**3,
        "batch": {"files": 100, "wait": 30.0},
        "quarantine": {"after": 3},
        "checkpoint": 100,
        "single_writer": False,
        "lease": 30.0,
    }


def test_the_core_gets_numbers_for_words() -> None:
    config = load_config(
        MINIMAL,
        overrides={
            "region": {
                "axis": {"policy": "regular", "start": "1992-01-01T15:20:00", "step": "6h", "dimension": "t"},
                "winner": "priority",
                "priority": "**/D*.nc",
            },
            "run": {"memory": "512 MB", "workers": 3, "batch": {"wait": "2min"}},
            "store": {"storage_options": {"virtual_hosted_style_request": False, "timeout": 5}},
        },
    )
    tree = json.loads(core_json(config))
    assert tree["region"]["axis"] == {"policy": "regular", "start": "1992-01-01T15:20:00", "step": "21600s"}
    assert tree["region"]["dimension"] == "t"
    assert tree["region"]["winner"] == {"priority": ["**/D*.nc"]}
    assert tree["run"]["memory"] == 512_000_000
    assert tree["run"]["workers"] == 3
    assert tree["run"]["batch"]["wait"] == 120.0
    assert tree["store"]["storage_options"] == {"virtual_hosted_style_request": "false", "timeout": "5"}


def test_the_core_takes_what_the_models_give() -> None:
    core = pytest.importorskip("regraft._core")
    core.Collection(
        core_json(load_config({**MINIMAL, "source": {"url": "/data/in"}, "store": {"url": "/data/x.zarr"}}))
    )


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2**31), ("1.5 MB", 1_500_000), ("10k", 10_000), ("7", 7), (12, 12), ("3KiB", 3072)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(1, 10**6), st.sampled_from(["B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_any_size_is_a_multiple_of_its_unit(number: int, unit: str) -> None:
    base = 1024 if "i" in unit else 1000
    power = "BKMGT".index(unit[0].upper())
    assert parse_size(f"{number}{unit}") == number * base**power


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5min", 300), ("1h", 3600), ("1D", 86400), ("250ms", 0.25), ("2", 2), (4, 4)]
)
def test_durations(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"region": {"tolerence": 1}}, ["unknown key `tolerence` in `region`", "did you mean `tolerance`?"]),
        ({"sotre": {}}, ["unknown key `sotre`", "did you mean `store`?"]),
        ({"region": {"winner": "lastest"}}, ["`latest`, `priority` or `error`", "found `lastest`", "mean `latest`?"]),
        ({"store": {"chunks": {"time": 0}}}, ["`store.chunks.time`", "above 0", "found `0`"]),
        ({"store": {"chunks": {"time": "one"}}}, ["`store.chunks.time`: expected a whole number, found `one`"]),
        ({"run": {"memory": "2 GiBs"}}, ["`run.memory`", "such as `2GiB`", "found `2 GiBs`"]),
        ({"run": {"batch": {"wait": "soon"}}}, ["`run.batch.wait`", "found `soon`"]),
        ({"region": {"axis": "regular"}}, ["`region.axis`", "`start` and `step`"]),
        ({"region": {"axis": {"policy": "sorted", "step": "1D"}}}, ["belongs to the policy `regular`"]),
        ({"region": {"winner": "priority"}}, ["`winner: priority`", "`priority`"]),
        ({"store": {"format": "zarr2", "shards": {"time": 3}}}, ["`shards` need `format: zarr3`"]),
        ({"store": {"chunks": {"time": 2}, "shards": {"time": 3}}}, ["a multiple of `chunks.time` = 2, found `3`"]),
        ({"store": {"codec": "gzip", "level": 12}}, ["expected 0 to 9", "found `12`"]),
        ({"store": {"codec": "source", "level": 1}}, ["`level` has no meaning"]),
        ({"source": {"preprocess": "tidy"}}, ["`package.module:function`", "found `tidy`"]),
        ({"variables": {"packing": {"sst": {"sclae": 1}}}}, ["unknown key `sclae`", "did you mean `scale`?"]),
        ({"store": {"url": "s4://x"}}, ["`s4://`", "did you mean `s3`?"]),
        ({"store": {"url": "https://x"}}, ["cannot be written over `https://`"]),
        ({"source": "here"}, ["`source`: expected a mapping, found `here`"]),
        ({"name": "a b"}, ["`name`", "found `a b`"]),
    ],
)
def test_mistakes_are_named(overrides: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(InvalidError) as caught:
        load_config(merge(MINIMAL, overrides))
    for part in expected:
        assert part in str(caught.value)


def test_what_is_missing_is_said_with_where_to_say_it() -> None:
    with pytest.raises(InvalidError) as caught:
        load_config("definition:sst")
    assert "`source.url` is missing" in caught.value.message
    assert "`store.url` is missing" in caught.value.message
    assert caught.value.hint is not None
    assert "where the files are" in caught.value.hint


def test_mistakes_have_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "sst.yaml", "kind: zarr-collection\nname: sst\nregion:\n  key: time\n  winnner: latest\n")
    with pytest.raises(InvalidError, match=r"sst\.yaml:5`: unknown key `winnner` in `region`"):
        load_config(path)


def test_an_override_is_blamed_and_not_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "sst.yaml", "name: sst\nsource: {url: a}\nstore: {url: b}\nregion: {key: time}\n")
    with pytest.raises(InvalidError, match=r"^`overrides`: unknown key `kee`"):
        load_config(path, overrides={"region": {"kee": 1}})


def test_broken_yaml_and_json_say_where(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"no valid YAML.*line 2"):
        load_config(write(tmp_path / "a.yaml", "name: a\nsource: {url: ]\n"))
    with pytest.raises(InvalidError, match="no valid JSON"):
        load_config(write(tmp_path / "a.json", "{"))
    with pytest.raises(InvalidError, match="expected a mapping, found `list`"):
        load_config(write(tmp_path / "b.yaml", "- a\n"))
    with pytest.raises(NotFoundError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")


def test_paths_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    write(tmp_path / "base" / "base.yaml", "source: {url: incoming/}\nregion: {key: time}\n")
    child = write(tmp_path / "child" / "sst.yaml", "extends: ../base/base.yaml\nname: sst\nstore: {url: sst.zarr}\n")
    config = load_config(child)
    assert config.source.url == f"{tmp_path}/base/incoming/"
    assert config.store.url == f"{tmp_path}/child/sst.zarr"


def test_json_files_load(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "sst.json", json.dumps(MINIMAL))).name == "sst"


def test_extends_merges_deep_and_null_resets(tmp_path: Path) -> None:
    parent = {**MINIMAL, "store": {"url": "/a", "chunks": {"time": 1, "lat": 5}, "format": "zarr2"}}
    write(tmp_path / "parent.json", json.dumps(parent))
    child = write(
        tmp_path / "child.yaml", "extends: parent.json\nname: child\nstore: {chunks: {lat: 7}, format: null}\n"
    )
    config = load_config(child)
    assert config.store.chunks == {"time": 1, "lat": 7}
    assert config.store.format == "zarr3"
    assert config.name == "child"


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(InvalidError, match="extends itself"):
        load_config(tmp_path / "a.yaml")


def test_an_axis_word_in_the_parent_becomes_its_policy() -> None:
    assert merge({"axis": "regular"}, {"axis": {"start": 1}}) == {"axis": {"policy": "regular", "start": 1}}


def test_yaml_dates_are_text(tmp_path: Path) -> None:
    axis = "{policy: regular, start: 1992-01-01T15:20:00, step: 1D}"
    text = f"name: a\nsource: {{url: a}}\nstore: {{url: b}}\nregion: {{key: t, axis: {axis}}}\n"
    assert load_config(write(tmp_path / "a.yaml", text)).region.axis.start == "1992-01-01T15:20:00"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SST_BUCKET", "lab")
    monkeypatch.setenv("SST_EMPTY", "")
    monkeypatch.delenv("SST_NONE", raising=False)
    tree = merge(
        MINIMAL,
        {
            "store": {"url": "s3://${SST_BUCKET}/${SST_EMPTY:-x}-${SST_NONE:-y}.zarr"},
            "run": {"quarantine": {"after": "${SST_AFTER:-4}"}},
            "source": {"include": ["$${not}*.nc"]},
        },
    )
    config = load_config(tree)
    assert config.store.url == "s3://lab/x-y.zarr"
    assert config.run.quarantine.after == 4
    assert config.source.include == ["${not}*.nc"]
    with pytest.raises(InvalidError, match="`SST_NONE` is not set"):
        load_config(merge(MINIMAL, {"store": {"url": "s3://${SST_NONE}/a"}}))


@pytest.mark.parametrize("option", ["aws_secret_access_key", "secret", "azure_storage_sas_key", "token", "password"])
def test_secrets_are_refused(option: str) -> None:
    with pytest.raises(InvalidError, match="looks like a secret") as caught:
        load_config(merge(MINIMAL, {"store": {"storage_options": {option: "abc"}}}))
    assert "storage_options=" in str(caught.value.hint)
    with pytest.raises(InvalidError, match="holds a password"):
        load_config(merge(MINIMAL, {"source": {"url": "https://me:word@host/x"}}))


def test_a_secret_may_be_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc")
    config = load_config(merge(MINIMAL, {"store": {"storage_options": {"aws_secret_access_key": "${MY_KEY}"}}}))
    assert config.store.storage_options == {"aws_secret_access_key": "abc"}
    assert "abc" not in repr(config)
    assert "abc" not in json.dumps(public_config(config))


def test_storage_options_go_to_object_storage_only() -> None:
    config = load_config(merge(MINIMAL, {"source": {"url": "/data"}}), storage_options={"secret_access_key": "k"})
    assert config.source.storage_options == {}
    assert config.store.storage_options == {"secret_access_key": "k"}
    config = load_config(MINIMAL, storage_options={"source": {"skip_signature": True}, "store": {"token": "t"}})
    assert config.source.storage_options == {"skip_signature": "true"}
    assert config.store.storage_options == {"token": "t"}


def test_public_config_loads_again() -> None:
    tree = merge(MINIMAL, {"region": {"axis": {"policy": "regular", "start": 0, "step": "1D"}}, "run": {"workers": 2}})
    config = load_config(tree)
    assert core_json(load_config(public_config(config))) == core_json(config)


def test_overrides_from_the_command_line() -> None:
    assert parse_overrides(["store.url=/x", "store.chunks.time=1", "region.axis={policy: fixed}"]) == {
        "store": {"url": "/x", "chunks": {"time": 1}},
        "region": {"axis": {"policy": "fixed"}},
    }
    for wrong in ("store.url", "=1", "a..b=1", "a=["):
        with pytest.raises(InvalidError):
            parse_overrides([wrong])


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_merging_twice_changes_nothing(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base


def test_models_are_frozen() -> None:
    config = load_config(MINIMAL)
    with pytest.raises(ValidationError):
        config.name = "other"  # type: ignore[misc]


def test_schema_knows_every_field_and_describes_it() -> None:
    schema = collection_schema()
    assert set(CollectionConfig.model_fields) | {"extends", "$schema"} == set(schema["properties"])
    for model in schema["$defs"].values():
        for name, field in model["properties"].items():
            assert field.get("description"), f"{model['title']}.{name} has no description"
    assert json.loads(schema_text("collection")) == schema
    with pytest.raises(InvalidError, match="found `tea`"):
        schema_text("tea")
    assert modeline("a.json") == "# yaml-language-server: $schema=a.json"


def test_schema_accepts_what_the_loader_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(collection_schema())
    validator.check_schema(collection_schema())
    rich = {
        "region": {
            "axis": {"policy": "regular", "start": "1992-01-01", "step": "1D"},
            "priority": "a",
            "key": ["a", "b"],
        },
        "run": {"memory": "2GiB", "workers": "auto", "batch": {"wait": "30s"}},
        "variables": {"include": "sst", "packing": {"sst": {"dtype": "int16", "scale": 0.01}}},
    }
    assert not list(validator.iter_errors(MINIMAL))
    assert not list(validator.iter_errors(merge(MINIMAL, rich)))
    assert not list(validator.iter_errors({"extends": "definition:sst"}))
    assert list(validator.iter_errors({"name": "a"}))
    assert list(validator.iter_errors(merge(MINIMAL, {"store": {"chnks": {}}})))
    assert list(validator.iter_errors(merge(MINIMAL, {"region": {"axis": "sortd"}})))
