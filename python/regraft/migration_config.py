"""What one YAML file says about a migration set: the models, without the reading of files.

Every field has its meaning here, once, as for collections (`config`). A step is a plain change of columns from one
version to a later one; `migration_steps` makes it run, `core_json` is what the Rust core is given.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from regraft.config import Patterns, Size, StorageOptions, parse_duration, parse_size
from regraft.config_errors import did_you_mean
from regraft.config_file import ConfigKind, read_config

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

__all__ = ["DataConfig", "MigrationSetConfig", "StepConfig", "load_migrations", "migrations_core_json"]

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([A-Za-z]+)|per\s+([A-Za-z]+))?\s*")
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def _rate(value: object) -> object:
    """`200/s`, `1000/min` or a number of objects per second."""
    if not isinstance(value, str):
        return value
    found = _RATE.fullmatch(value.removesuffix("files").strip())
    if found is None:
        raise ValueError(f"expected a rate such as `200/s` or `1000/min`, found `{value}`")
    seconds = parse_duration(f"1{found[2] or found[3] or 's'}")
    return float(found[1]) / float(seconds) if isinstance(seconds, float) else value


def _bandwidth(value: object) -> object:
    """`100MB/s` or a number of bytes per second."""
    return float(str(parse_size(re.sub(r"\s*/\s*s\s*$", "", value)))) if isinstance(value, str) else value


def _failures(value: object) -> object:
    """`1%` stays text, so that the share is taken of what the plan holds; a count may be text, too."""
    if isinstance(value, str):
        percent = _PERCENT.fullmatch(value)
        if percent is not None and float(percent[1]) <= 100:
            return f"{float(percent[1]):g}%"
        if not value.strip().isdigit():
            raise ValueError(f"expected a count or a share such as `1%`, found `{value}`")
        return int(value)
    return value


Rate = Annotated[float, Field(gt=0), BeforeValidator(_rate)]
Bandwidth = Annotated[float, Field(gt=0), BeforeValidator(_bandwidth)]
Failures = Annotated[Annotated[int, Field(ge=0)] | str, BeforeValidator(_failures)]
ColumnName = Annotated[str, Field(min_length=1)]
Version = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class DataConfig(_Model):
    """Which objects belong to the data set."""

    url: str
    """Folder or prefix of the files: a path, `file://`, `s3://`, `gs://` or `az://`."""
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)
    """Options of the object store (`region`, `endpoint`, …); never secrets."""
    prefixes: Patterns = []
    """Beginnings of keys below `url`, for instance `year=2019/`; none means all."""
    suffix: str = ".parquet"
    """End of the keys; empty takes every end."""
    contains: str = ""
    """Text that the file's name contains."""
    sidecars: Literal["refuse", "keep"] = "refuse"
    """What becomes of a `_metadata` file, which repeats the footers of all files and would be wrong afterwards.
    `refuse`: nothing is migrated while it is there; `keep`: you write it again."""


class VersionConfig(_Model):
    """Where an object says which version it has."""

    key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9 +\-=._:/@]{1,128}$")
    """Name of the footer's key-value and of the object's tag; by default `schema:<name>:version`."""
    default: Version = 1
    """The version of an object that says none."""


class StepConfig(_Model):
    """What changes from one version to a later one."""

    from_: Version = Field(alias="from")
    """The version that the step starts from."""
    to: Version
    """The version that it leads to."""
    name: str | None = None
    """What people call it; by default made from its columns."""
    sql: dict[ColumnName, str] = {}
    """New columns, each with a scalar SQL expression over the columns as they are before the step."""
    python: str | None = Field(default=None, pattern=r"^.+:[A-Za-z_][A-Za-z0-9_]*$")
    """`package.module:function` or `file.py:function`: a `pyarrow.RecordBatch` of `reads` goes in, `adds` come out."""
    reads: list[ColumnName] | None = None
    """Columns that the Python function is given; an SQL expression names its own."""
    adds: dict[ColumnName, str] = {}
    """Types of the new columns: all of a Python function's; those of SQL that shall not have their natural type."""
    rename: dict[ColumnName, ColumnName] = {}
    """Old names and new ones."""
    drop: Annotated[list[ColumnName], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = []
    """Columns to take out."""
    cast: dict[ColumnName, str] = {}
    """Columns that get another type; one that `sql` or `adds` names as well is computed anew, in its place."""
    revision: str | None = None
    """Says which definition a Python function is, in place of its source text."""

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if self.to <= self.from_:
            raise ValueError(f"expected `to` above `from`, found {self.from_}→{self.to}")
        return self

    @model_validator(mode="after")
    def _sql_or_python(self) -> Self:
        if self.sql and self.python:
            raise ValueError("`sql` and `python` are two steps: expected one of them")
        if self.python and not self.adds:
            raise ValueError("`python` needs `adds`: the names and types of the columns that the function returns")
        if self.python and self.reads is None:
            raise ValueError("`python` needs `reads`: the columns that the function is given; `[]` for none")
        if not self.python:
            for key in ("reads", "revision"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` belongs to `python`; SQL expressions name their own columns")
            for name in self.adds:
                if name not in self.sql:
                    meant = did_you_mean(name, self.sql)
                    raise ValueError(
                        f"`adds.{name}` is the type of a column that nothing computes" + (f": {meant}" if meant else "")
                    )
        return self

    @model_validator(mode="after")
    def _columns_once(self) -> Self:
        for name in self.drop:
            if name in self.rename or name in self.cast:
                raise ValueError(f"`{name}` is dropped, and {'renamed' if name in self.rename else 'cast'} as well")
        new = list(self.rename.values())
        doubled = [name for name in new if new.count(name) > 1]
        if doubled:
            raise ValueError(f"two columns are renamed to `{doubled[0]}`")
        return self

    @property
    def label(self) -> str:
        """How errors and tables call the step."""
        return f"{self.from_}→{self.to}"


class EncodeConfig(_Model):
    """How new columns are encoded."""

    compression: Literal["uncompressed", "snappy", "gzip", "zstd", "lz4_raw", "brotli"] | None = None
    """Compression of the new columns; by default that of the file."""
    bloom: Patterns = []
    """New columns that get a bloom filter."""


class CarryConfig(_Model):
    """What a rewrite says again besides metadata, tags, storage class and encryption, which are always carried over."""

    grants: Literal["auto"] | bool = "auto"
    """Access that others were granted to single objects on S3. `auto`: asked for, one request an object, where the
    bucket has such grants; `false`: they are lost."""


class RunConfig(_Model):
    """How the work is done; nothing here changes what is stored."""

    concurrency: PositiveInt = 100
    """Objects under way at once."""
    rate: Rate | None = None
    """Objects started per second at most, for instance `200/s`."""
    bytes_per_second: Bandwidth | None = None
    """Bytes read and written per second at most, for instance `100MB/s`."""
    tries: PositiveInt = 10
    """How often one request is sent in all, at most; an object takes several. What fails all the same is an error of
    its object, and tried again by the next run."""
    max_failures: Failures | None = None
    """Failed objects, as a count or a share such as `1%`, after which no other is started."""
    memory: Size = 2 * 1024**3
    """Upper bound for decoded and encoded data, for instance `2GiB`."""


class PricesConfig(_Model):
    """Prices in US dollars, in place of the dated table of S3 Standard and Lambda."""

    date: str
    """When they were looked up."""
    write_per_1000: float = Field(default=0.005, ge=0)
    """A thousand writes, copies, parts and listings."""
    read_per_1000: float = Field(default=0.0004, ge=0)
    """A thousand reads."""
    compute_per_second: float = Field(default=0.0000288, ge=0)
    """One second of one core with its memory."""
    egress_per_gb: float = Field(default=0.0, ge=0)
    """A gigabyte (10⁹ bytes) that leaves the region."""


class MigrationSetConfig(_Model):
    """A migration set: a data set of Parquet files with its ordered steps."""

    kind: Literal["migration-set"] = "migration-set"
    """What the file describes."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the set; its records are kept under it."""
    data: DataConfig
    """The Parquet files."""
    version: VersionConfig = VersionConfig()
    """Where a file says its version."""
    target: Version | None = None
    """The version to reach; by default the highest that a step leads to."""
    layout: Literal["auto", "widened", "contiguous"] = "auto"
    """`widened`: the old file stays as a prefix; `contiguous`: no dead bytes; `auto`: widened where that is safe."""
    steps: list[StepConfig] = []
    """The steps, in any order."""
    encode: EncodeConfig = EncodeConfig()
    """How new columns are encoded."""
    carry: CarryConfig = CarryConfig()
    """What is carried over besides bytes, metadata and tags."""
    run: RunConfig = RunConfig()
    """How the work is done."""
    prices: PricesConfig | None = None
    """Prices for estimates."""

    @model_validator(mode="after")
    def _steps_differ(self) -> Self:
        seen: set[tuple[int, int]] = set()
        for step in self.steps:
            ends = (step.from_, step.to)
            if ends in seen:
                raise ValueError(f"two steps lead from {step.from_} to {step.to}: join them into one")
            seen.add(ends)
        return self

    @property
    def version_key(self) -> str:
        """Name of the footer's key-value and of the tag."""
        return self.version.key or f"schema:{self.name}:version"


_MIGRATIONS = ConfigKind(
    MigrationSetConfig,
    places=("data",),
    written=("data",),
    schema="migrations",
    absent="`regraft schema migrations` says what belongs into one, and `regraft demo` leaves one behind",
)


def load_migrations(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> MigrationSetConfig:
    """Reads and validates the configuration of a migration set.

    Args:
        config: A YAML or JSON file, or the same as a mapping.
        overrides: Merged over the configuration, deep; a list such as `steps` replaces.
        storage_options: Options of the object store, secrets allowed, which are written nowhere.

    Returns:
        The validated configuration, with absolute paths.

    Raises:
        InvalidError: A key is unknown, a value is wrong, a variable is not set, or a secret is in the file.
        NotFoundError: The file, or one that it extends, does not exist.

    Example:
        >>> load_migrations({"name": "sensors", "data": {"url": "s3://lake/sensors/"}}).version_key
        'schema:sensors:version'
    """
    return read_config(_MIGRATIONS, config, overrides=overrides, storage_options=storage_options)


def migrations_core_json(config: MigrationSetConfig, fingerprints: Sequence[str]) -> str:
    """The configuration as the Rust core reads it.

    Args:
        config: The validated configuration.
        fingerprints: One for each step, in order.

    Returns:
        JSON with every default filled in: bytes as integers, rates per second; steps without their code, which stays in
        Python; what has no value is left out.
    """
    tree = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    tree["version"]["key"] = config.version_key
    tree["steps"] = [
        {
            "from": step.from_,
            "to": step.to,
            "name": step.name or "",
            "fingerprint": fingerprint,
            "kind": "python" if step.python else "sql",
            "reads": step.reads,
            "adds": step.adds if step.python else {name: step.adds.get(name) for name in step.sql},
            "rename": step.rename,
            "drop": step.drop,
            "cast": step.cast,
        }
        for step, fingerprint in zip(config.steps, fingerprints, strict=True)
    ]
    return json.dumps(tree)
