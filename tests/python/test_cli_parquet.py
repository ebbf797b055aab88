"""The command `regraft parquet`: answers as text and as JSON, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from regraft.cli import main
from regraft.demo_sensors import write_sensor_file, write_set


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    output = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


@pytest.mark.parametrize("verb", ["plan", "apply", "status", "history", "verify", "rollback"])
def test_every_command_speaks_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "parquet", verb, "--help")
    assert code == 0
    assert "--json" in out


def test_a_life_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_set(tmp_path, files=3, rows=200)
    plan = tmp_path / "plan.json"
    code, out, err = run(capsys, "parquet", "plan", config, "-o", plan, "--exit-code")
    assert code == 3
    assert "3 files of" in out
    assert f"saved {plan}; next: regraft parquet apply {plan}" in err
    code, out, _ = run(capsys, "parquet", "apply", plan, "--shard", "1/2", "--run", "monday", "--json")
    assert code == 0
    assert json.loads(out)["totals"]["done"] == 2
    code, out, _ = run(capsys, "parquet", "apply", plan, "--shard", "2/2", "--run", "monday", "-q")
    assert code == 0
    assert "done, run monday" in out
    code, out, _ = run(capsys, "parquet", "plan", config, "--exit-code", "-q")
    assert (code, "nothing to do for version 3" in out) == (0, True)
    code, out, _ = run(capsys, "parquet", "status", config, "--json")
    assert json.loads(out)["versions"] == {"3": 3}
    code, out, _ = run(capsys, "parquet", "verify", config, "--run", "monday", "-q")
    assert (code, "3 files checked" in out) == (0, True)
    code, out, _ = run(capsys, "parquet", "rollback", config, "--run", "monday", "--json")
    assert (code, json.loads(out)["totals"]["rolled_back"]) == (0, 3)
    code, out, _ = run(capsys, "parquet", "history", config, "--json")
    assert next(entry["verb"] for entry in json.loads(out)) == "roll_back"
    code, out, _ = run(capsys, "parquet", "apply", config, "--to", "2", "--set", "run.concurrency=2", "-q")
    assert code == 0


def test_what_fails_is_4_and_what_changed_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, plan = write_set(tmp_path, files=2, rows=100), tmp_path / "plan.json"
    write_sensor_file(tmp_path / "sensors" / "old.parquet", 9, version=0, rows=10)
    code, out, _ = run(capsys, "parquet", "apply", config, "-q")
    assert code == 4
    assert "expected a step from version `0` towards `3`" in out
    (tmp_path / "sensors" / "old.parquet").unlink()
    run(capsys, "parquet", "rollback", config, "-q")
    run(capsys, "parquet", "plan", config, "-o", plan, "-q")
    (changed,) = (tmp_path / "sensors").rglob("sensor-00.parquet")
    pq.write_table(pa.table({"other": [1]}), changed)
    code, out, _ = run(capsys, "parquet", "apply", plan, "-q")
    assert code == 5
    assert pq.read_schema(changed).names == ["other"]


def test_usage_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, plan = write_set(tmp_path, files=1, rows=10), tmp_path / "plan.json"
    assert run(capsys, "parquet", "apply", config, "--shard", "3/2")[0] == 2
    assert run(capsys, "parquet", "plan")[0] == 2
    run(capsys, "parquet", "plan", config, "-o", plan, "-q")
    code, _, err = run(capsys, "parquet", "apply", plan, "--to", "2")
    assert (code, "takes neither" in err) == (1, True)
    code, _, err = run(capsys, "parquet", "plan", tmp_path / "none.yaml")
    assert (code, "there is no configuration file" in err) == (1, True)
    code, _, err = run(capsys, "parquet", "verify", config, "--run", "never")
    assert (code, "`never`" in err) == (1, True)
    code, out, _ = run(capsys, "schema", "migrations")
    assert json.loads(out)["properties"]["kind"]["const"] == "migration-set"
