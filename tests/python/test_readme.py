"""What the README says can be done: its configuration is valid, its code runs, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import regraft
import typer
import yaml
from regraft.cli.commands import app
from regraft.config_file import load_config
from regraft.demo_data import SstGrid, day_name, write_sst_day
from regraft.demo_sensors import write_sensor_file
from regraft.migration_config import load_migrations
from typer.main import get_command

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "incoming").mkdir()
    for day in range(2):
        write_sst_day(tmp_path / "incoming" / day_name(day), day, grid=SstGrid(36, 48))
    (tmp_path / "sst.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    program = compile(blocks("python")[0], "README.md", "exec")
    exec(program, {})  # noqa: S102 - the README is ours
    assert "time: 2" in capsys.readouterr().out


def test_configurations_are_valid(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        said = yaml.safe_load(block)
        load = load_migrations if said["kind"] == "migration-set" else load_config
        assert load(path).name == said["name"]


def test_the_migration_runs(tmp_path: Path) -> None:
    write_sensor_file(tmp_path / "sensors" / "one.parquet", 1, rows=100)
    first, second = (
        block.replace("s3://lake/sensors/", str(tmp_path / "sensors"))
        for block in blocks("python")
        if "sensors" in block
    )
    scope = {"regraft": regraft, "pc": pc}
    exec(compile(first, "README.md", "exec"), scope)  # noqa: S102 - the README is ours
    assert scope["run"].counts == {"done": 1}
    decorated = tmp_path / "decorated.py"
    decorated.write_text(second)
    exec(compile(second, str(decorated), "exec"), scope)  # noqa: S102 - the README is ours
    scope["sensors"].plan(progress=False).apply(progress=False).raise_for_failures()
    assert pq.read_schema(tmp_path / "sensors" / "one.parquet").names[-2:] == ["dew_point_c", "heat_index_c"]


def test_commands_exist() -> None:
    root = get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    named = set(re.findall(r"\bregraft (zarr |parquet )?([a-z]+)", "\n".join(blocks("text"))))
    assert ("", "demo") in named
    for group, command in named:
        parent = root.commands[group.strip()] if group else root
        assert command in parent.commands, f"README names `regraft {group}{command}`"


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", README, re.M)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (Path(__file__).resolve().parents[2] / target).exists(), target
