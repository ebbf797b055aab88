"""What one YAML file says about a collection: the models, without the reading of files.

Every field has its meaning here, once: the JSON Schema that editors use and the text of ``regraft schema`` come from
these docstrings. Unknown keys are refused, because a typing error in ``tolerence`` must not become a default.
`config_file` reads files into these models; `core_json` is what the Rust core is given.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

__all__ = [
    "AxisConfig",
    "BatchConfig",
    "CollectionConfig",
    "GuardsConfig",
    "PackingConfig",
    "QuarantineConfig",
    "RegionConfig",
    "RunConfig",
    "SourceConfig",
    "StoreConfig",
    "VariablesConfig",
    "core_json",
    "parse_duration",
    "parse_size",
]

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?)B?\s*", re.IGNORECASE)
_SIZE_UNITS = {"": 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** (power + 1)
    for power, letter in enumerate("kmgt")
    for binary in ("", "i")
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)?\s*", re.IGNORECASE)
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_LEVELS = {"zstd": (-7, 22), "blosc": (0, 9), "gzip": (0, 9), "zlib": (0, 9)}
_DATA_TYPES = Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def parse_size(value: object) -> object:
    """A size in bytes from ``2GiB``, ``512 MB`` or a number.

    Args:
        value: What the file says; anything but text and numbers is returned as it is, for the model to refuse.

    Returns:
        Whole bytes.

    Raises:
        ValueError: The text is no size.

    Example:
        >>> parse_size("2GiB")
        2147483648
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError(f"expected a size such as `2GiB` or `512MB`, found `{value}`")
    return int(float(found[1]) * _SIZE_UNITS[found[2].lower()])


def parse_duration(value: object) -> object:
    """A duration in seconds from ``30s``, ``5min``, ``1h``, ``1D`` or a number of seconds.

    Args:
        value: What the file says; anything but text and numbers is returned as it is, for the model to refuse.

    Returns:
        Seconds.

    Raises:
        ValueError: The text is no duration.

    Example:
        >>> parse_duration("1D")
        86400.0
    """
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"expected a duration such as `30s`, `5min`, `6h` or `1D`, found `{value}`")
    return float(found[1]) * _DURATION_UNITS[(found[2] or "s").lower()]


def _text(value: object) -> object:
    """YAML makes dates of ISO times and numbers of ``region: 2``; labels and options are text."""
    if isinstance(value, dt.date):
        return value.isoformat()
    return value


def _option(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _duration_text(value: object) -> object:
    if isinstance(value, str):
        parse_duration(value)
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Size = Annotated[PositiveInt, BeforeValidator(parse_size)]
Seconds = Annotated[float, Field(ge=0), BeforeValidator(parse_duration)]
StorageOptions = dict[str, Annotated[str, BeforeValidator(_option)]]
Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list)]
Lengths = dict[str, PositiveInt]


class _Model(BaseModel):
    # The docstring of a field is its description; `schema` reads them: pydantic would parse this file at each start.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourceConfig(_Model):
    """Where the NetCDF files are, and which of them belong to the collection."""

    url: str
    """Folder or prefix of the files: a path, `file://`, `s3://`, `gs://`, `az://`, `https://` or `memory://`."""
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)
    """Options of the object store (`region`, `endpoint`, `skip_signature`, …); never secrets."""
    include: Patterns = ["**/*.nc"]
    """Globs on the key below `url`; one that begins with `re:` is a regular expression."""
    exclude: Patterns = []
    """Globs or `re:` patterns of keys to leave out."""
    preprocess: str | None = Field(default=None, pattern=r"^[^:]+:[A-Za-z_][A-Za-z0-9_]*$")
    """`package.module:function` or `file.py:function`: `f(xarray.Dataset, source)` gives the data set to store."""


class StoreConfig(_Model):
    """The Zarr store that is kept right."""

    url: str
    """Path or URL of the store."""
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)
    """Options of the object store (`region`, `endpoint`, …); never secrets."""
    format: Literal["zarr3", "zarr2"] = "zarr3"
    """Zarr format of a store that is created; an existing store keeps its own."""
    chunks: Lengths = {}
    """Elements per chunk along each dimension; a dimension that is not named gets one chunk (the axis: 1)."""
    shards: Lengths | None = None
    """Elements per shard (zarr3): one object holds many chunks, and a new file re-encodes none of its neighbours."""
    codec: Literal["zstd", "blosc", "gzip", "zlib", "none", "source"] = "zstd"
    """Compression; `source` keeps that of the files, so that chunks of the same shape are copied without decoding."""
    level: int | None = None
    """Compression level, on the codec's own scale; by default zstd 3, blosc 5, gzip 5, zlib 4."""
    empty_chunks: Literal["drop", "fill"] = "drop"
    """A chunk that becomes all fill value: delete the object, or write it."""
    provenance: str | None = None
    """Name of a coordinate that holds, along the axis, the key of the file each region came from."""

    @model_validator(mode="after")
    def _level(self) -> Self:
        if self.level is None:
            return self
        low, high = _LEVELS.get(self.codec, (0, -1))
        if high < low:
            raise ValueError(f"`level` has no meaning for the codec `{self.codec}`")
        if not low <= self.level <= high:
            raise ValueError(f"`level`: expected {low} to {high} for the codec `{self.codec}`, found `{self.level}`")
        return self

    @model_validator(mode="after")
    def _shards(self) -> Self:
        if self.shards is None:
            return self
        if self.format == "zarr2":
            raise ValueError("`shards` need `format: zarr3`, found `format: zarr2`")
        for dimension, length in self.shards.items():
            chunk = self.chunks.get(dimension)
            if chunk is not None and length % chunk:
                raise ValueError(
                    f"`shards.{dimension}`: expected a multiple of `chunks.{dimension}` = {chunk}, found `{length}`"
                )
        return self


class AxisConfig(_Model):
    """How labels become indices along the axis."""

    policy: Literal["regular", "sorted", "arrival", "fixed"] = "sorted"
    """`regular`: slot by arithmetic; `sorted`: insert in order; `arrival`: append; `fixed`: only labels that exist."""
    start: Annotated[float | str | None, BeforeValidator(_text)] = None
    """First label of a `regular` axis: an ISO time, or a number in the key's own units."""
    step: Annotated[float | str | None, BeforeValidator(_duration_text)] = None
    """Distance of two labels of a `regular` axis: a duration (`1D`), or a number in the key's own units."""

    @model_validator(mode="before")
    @classmethod
    def _policy_alone(cls, value: object) -> object:
        return {"policy": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _start_and_step(self) -> Self:
        given = [name for name in ("start", "step") if getattr(self, name) is not None]
        if self.policy == "regular" and len(given) < 2:
            raise ValueError("expected `start` and `step` for the policy `regular`")
        if self.policy != "regular" and given:
            raise ValueError(f"`{given[0]}` belongs to the policy `regular`, found policy `{self.policy}`")
        if isinstance(self.step, int | float) and self.step <= 0:
            raise ValueError(f"expected a `step` above 0, found `{self.step}`")
        return self


class RegionConfig(_Model):
    """Which part of the store a file owns."""

    key: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    """The variable whose values are the labels that place a file (`time`, `DC_REFERENCE`), or several to be joined."""
    axis: AxisConfig = AxisConfig()
    """A policy (`regular`, `sorted`, `arrival`, `fixed`), or a mapping `{policy, start, step}`."""
    dimension: str | None = None
    """The dimension that grows, where it is not named like the key (Argo: key `DC_REFERENCE`, dimension `N_PROF`)."""
    winner: Literal["latest", "priority", "error"] = "latest"
    """Two files claim one region: the later one, the one that comes first in `priority`, or an error."""
    priority: Patterns = []
    """Globs on the key, the strongest first."""
    on_remove: Literal["restore", "blank", "keep"] = "restore"
    """The file that owns a region is gone: bring the runner-up back (else blank), blank, or keep the values."""
    tolerance: float | None = Field(default=None, ge=0)
    """How far float labels, or float coordinates, may be apart and match; by default a thousandth of their step."""

    @model_validator(mode="before")
    @classmethod
    def _dimension_of_axis(cls, value: object) -> object:
        """`axis: {dimension: …}` is the same as `dimension: …`."""
        if not isinstance(value, Mapping) or not isinstance(value.get("axis"), Mapping):
            return value
        axis = dict(value["axis"])
        if "dimension" not in axis:
            return value
        dimension = axis.pop("dimension")
        if value.get("dimension", dimension) != dimension:
            raise ValueError(f"`dimension` is `{value['dimension']}`, and `axis.dimension` is `{dimension}`")
        return {**value, "axis": axis, "dimension": dimension}

    @model_validator(mode="after")
    def _priority(self) -> Self:
        if (self.winner == "priority") != bool(self.priority):
            raise ValueError("`winner: priority` and a list `priority` of globs belong together")
        return self


class PackingConfig(_Model):
    """How one variable is packed in the store; values that cannot be represented are an error."""

    dtype: _DATA_TYPES | None = None
    """Stored type."""
    scale: float | None = None
    """`scale_factor`: value = stored * scale + offset."""
    offset: float | None = None
    """`add_offset`, in the variable's units."""
    fill: int | float | None = None
    """`_FillValue`, in stored units."""
    max_error: float | None = Field(default=None, ge=0)
    """Largest difference that repacking may make, in the variable's units; by default half a step of the scale."""

    @model_validator(mode="after")
    def _scale(self) -> Self:
        if self.scale == 0:
            raise ValueError("expected a `scale` other than 0")
        return self


class VariablesConfig(_Model):
    """Which variables are kept, and how."""

    include: Patterns = []
    """Names of the variables to store; none named means all. Coordinates and the key are always stored."""
    exclude: Patterns = []
    """Names of variables to leave out."""
    pad: Lengths = {}
    """Fixed lengths of ragged dimensions: a shorter file is filled up, a longer one is quarantined."""
    missing: Literal["fill", "error"] = "fill"
    """A variable of the store is absent from a file: fill value, or quarantine."""
    packing: dict[str, PackingConfig] = {}
    """Packing by variable; a variable that is not named stays as its file has it."""
    strings: Literal["fixed", "utf8"] = "fixed"
    """Character data: fixed-width bytes, or UTF-8 strings of any length."""


class GuardsConfig(_Model):
    """What must not change by accident."""

    structure: Literal["error", "allow"] = "error"
    """A file's dimensions, types or grid differ from the store's: quarantine it, or take it as far as it fits."""
    shrink: Literal["error", "allow"] = "error"
    """A revised file owns fewer labels than before: quarantine it, or blank what it no longer has."""


class BatchConfig(_Model):
    """How many files go into one commit."""

    files: PositiveInt = 100
    """Most files of one commit."""
    wait: Seconds = 30.0
    """Longest time to wait for a commit to fill, in seconds."""


class QuarantineConfig(_Model):
    """When a file is set aside."""

    after: PositiveInt = 3
    """Failed attempts, after which a file waits for `regraft zarr retry`."""


class RunConfig(_Model):
    """How the work is done; nothing here changes what is stored."""

    memory: Size = 2 * 1024**3
    """Upper bound for buffers, for instance `2GiB`."""
    workers: PositiveInt | None = None
    """Threads for decoding and encoding; `auto` is one per core."""
    batch: BatchConfig = BatchConfig()
    """Files per commit."""
    quarantine: QuarantineConfig = QuarantineConfig()
    """Files that fail."""
    checkpoint: PositiveInt = 100
    """Records of the log, after which a checkpoint of the ledger is written, in Parquet."""
    single_writer: bool = False
    """Declare that nothing else writes to the store; needed where it has no conditional puts."""
    lease: Annotated[Seconds, Field(gt=0)] = 30.0
    """How long after its last sign of life a writer may be taken for dead; on object storage."""

    @model_validator(mode="before")
    @classmethod
    def _automatic(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("workers") == "auto":
            return {name: item for name, item in value.items() if name != "workers"}
        return value


class CollectionConfig(_Model):
    """A collection: NetCDF files, and the Zarr store made from them."""

    kind: Literal["zarr-collection"] = "zarr-collection"
    """What the file describes."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the collection, used in reports."""
    source: SourceConfig
    """The NetCDF files."""
    store: StoreConfig
    """The Zarr store."""
    region: RegionConfig
    """How files map to regions of the store."""
    variables: VariablesConfig = VariablesConfig()
    """What is kept of each file."""
    guards: GuardsConfig = GuardsConfig()
    """What must not change by accident."""
    run: RunConfig = RunConfig()
    """How the work is done."""


def core_json(config: CollectionConfig) -> str:
    """The configuration as the Rust core reads it.

    Args:
        config: The validated configuration.

    Returns:
        JSON with every default filled in: bytes as integers, durations as seconds (the step of an axis as
        ``"86400s"``), an axis always as a mapping, ``winner`` as ``"latest"``, ``"error"`` or ``{"priority": [..]}``;
        what has no value is left out.
    """
    tree = config.model_dump(mode="json", exclude_none=True)
    region = tree["region"]
    step = region["axis"].get("step")
    if isinstance(step, str):
        region["axis"]["step"] = f"{parse_duration(step):.12g}s"
    priority = region.pop("priority")
    if region["winner"] == "priority":
        region["winner"] = {"priority": priority}
    return json.dumps(tree)
