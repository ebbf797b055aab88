from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from regraft.errors import InvalidError, NotFoundError
from regraft.migration_config import load_migrations, migrations_core_json
from regraft.schema import SCHEMAS, migrations_schema

MINIMAL: dict[str, Any] = {"name": "sensors", "data": {"url": "s3://lake/sensors/"}}

WHOLE = """\
kind: migration-set
name: sensorData
data: {url: s3://lake/parquet/, prefixes: ["year=2019/month=3/"], suffix: .parq.snappy, contains: sensorData_}
version: {key: "schema:sensorData:version", default: 1}
target: 3
layout: auto
steps:
  - {from: 1, to: 2, sql: {dew_point_c: "temp_c - (100 - rh) / 5"}}
  - {from: 2, to: 3, python: "steps:heat_index", reads: [temp_c, rh], adds: {heat_index_c: double},
     rename: {rh: humidity}, drop: [legacy_id]}
carry: {grants: false}
run: {concurrency: 100, rate: 200/s, tries: 10, max_failures: 1%, bytes_per_second: 100MB/s}
"""


def said(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**MINIMAL, "steps": list(steps), **more}


def test_the_design_s_example(tmp_path: Path) -> None:
    (tmp_path / "sensors.yaml").write_text(WHOLE)
    (tmp_path / "steps.py").write_text("def heat_index(batch): return batch\n")
    config = load_migrations(tmp_path / "sensors.yaml")
    tree = json.loads(migrations_core_json(config, ["a", "b"]))
    assert tree["run"] == {
        "concurrency": 100,
        "rate": 200.0,
        "bytes_per_second": 1e8,
        "tries": 10,
        "max_failures": "1%",
        "memory": 2 * 1024**3,
    }
    assert tree["carry"] == {"grants": False}
    assert tree["version"] == {"key": "schema:sensorData:version", "default": 1}
    first, second = tree["steps"]
    assert first == {
        "from": 1,
        "to": 2,
        "name": "",
        "fingerprint": "a",
        "kind": "sql",
        "reads": None,
        "adds": {"dew_point_c": None},
        "rename": {},
        "drop": [],
        "cast": {},
    }
    assert second["reads"] == ["temp_c", "rh"]
    assert second["adds"] == {"heat_index_c": "double"}
    assert (second["rename"], second["drop"]) == ({"rh": "humidity"}, ["legacy_id"])
    # The module beside the file is meant, wherever the process works.
    assert config.steps[1].python == f"{tmp_path}/steps.py:heat_index"


def test_defaults() -> None:
    config = load_migrations(MINIMAL)
    assert config.version_key == "schema:sensors:version"
    assert config.data.suffix == ".parquet"
    assert config.target is None


def test_extends_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("name: base\ndata: {url: '${LAKE:-lake}', suffix: .parq}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "set.yaml").write_text("extends: ../base.yaml\nname: derived\n")
    config = load_migrations(tmp_path / "sub" / "set.yaml")
    assert (config.name, config.data.url, config.data.suffix) == ("derived", f"{tmp_path}/lake", ".parq")
    monkeypatch.setenv("LAKE", "s3://lake/x/")
    assert load_migrations(tmp_path / "sub" / "set.yaml").data.url == "s3://lake/x/"
    with pytest.raises(NotFoundError):
        load_migrations(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (said({"from": 2, "to": 1}), "expected `to` above `from`, found 2→1"),
        (said({"from": 1, "to": 1}), "expected `to` above `from`"),
        (said({"from": 1, "to": 2}, {"from": 1, "to": 2}), "two steps lead from 1 to 2"),
        (said({"from": 1, "too": 2}), "did you mean `to`?"),
        (said({"from": 1, "to": 2, "sqll": {}}), "did you mean `sql`?"),
        (said({"from": 1, "to": 2, "sql": {"a": "1"}, "python": "m:f"}), "expected one of them"),
        (said({"from": 1, "to": 2, "python": "m:f", "reads": []}), "needs `adds`"),
        (said({"from": 1, "to": 2, "python": "m:f", "adds": {"a": "double"}}), "needs `reads`"),
        (said({"from": 1, "to": 2, "python": "nonsense"}), "expected `package.module:function`"),
        (said({"from": 1, "to": 2, "sql": {"dew": "1"}, "adds": {"dow": "double"}}), "did you mean `dew`?"),
        (said({"from": 1, "to": 2, "reads": ["a"]}), "`reads` belongs to `python`"),
        (said({"from": 1, "to": 2, "drop": ["a"], "rename": {"a": "b"}}), "`a` is dropped, and renamed as well"),
        (said({"from": 1, "to": 2, "rename": {"a": "c", "b": "c"}}), "two columns are renamed to `c`"),
        ({**MINIMAL, "run": {"rate": "fast"}}, "expected a rate"),
        ({**MINIMAL, "run": {"max_failures": "101%"}}, "expected a count or a share"),
        ({**MINIMAL, "run": {"concurrency": 0}}, "above 0"),
        ({**MINIMAL, "layout": "wide"}, "did you mean `widened`?"),
        ({**MINIMAL, "version": {"key": "a,b"}}, "`version.key`"),
        ({**MINIMAL, "data": {"url": "https://x/y"}}, "cannot be written"),
        ({**MINIMAL, "data": {"url": "s3://a/", "storage_options": {"aws_secret_access_key": "x"}}}, "secret"),
        ({"name": "x"}, "say where the files are: `data: {url: …}`"),
        ({**MINIMAL, "kind": "zarr-collection"}, "`kind`: expected `migration-set`"),
    ],
)
def test_mistakes_are_explained(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load_migrations(config)
    assert message in str(caught.value)


def test_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(WHOLE.replace("rename:", "renam:"))
    with pytest.raises(InvalidError, match=r"set.yaml:\d+`: unknown key `renam` in `steps.1`"):
        load_migrations(tmp_path / "set.yaml")


def test_the_schema_says_what_is_accepted() -> None:
    schema = migrations_schema()
    assert "migrations" in SCHEMAS
    assert schema["$defs"]["StepConfig"]["properties"]["from"]["description"]
    for model in (schema, *schema["$defs"].values()):
        assert all(
            "description" in field or "$ref" in field for name, field in model["properties"].items() if name[0] != "$"
        )
