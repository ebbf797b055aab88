"""Steps as the core calls them: bind, compute, fingerprints."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from regraft.errors import InvalidError
from regraft.migration_config import StepConfig
from regraft.migration_steps import Function, Steps, fingerprint

BATCH = pa.record_batch({"temp_c": [20.0, None, 30.0], "rh": [50.0, 60.0, 100.0], "id": [1, 2, 3]})


class Foreign:
    """Arrow data of somebody else: nothing but the PyCapsule interface."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __arrow_c_schema__(self) -> object:
        return self.given.__arrow_c_schema__()

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.given.__arrow_c_array__(requested_schema)


class ForeignSchema:
    def __init__(self, given: pa.Schema) -> None:
        self.given = given

    def __arrow_c_schema__(self) -> object:
        return self.given.__arrow_c_schema__()


def step(**said: Any) -> StepConfig:
    return StepConfig.model_validate({"from": 1, "to": 2, **said})


def python_steps(function: Function, **said: Any) -> Steps:
    said = {"reads": ["temp_c"], "adds": {"new": "double"}, **said}
    return Steps([step(python="here:made", **said)], {0: function})


def run(steps: Steps, batch: pa.RecordBatch = BATCH) -> pa.RecordBatch:
    reads, adds = steps.bind(0, ForeignSchema(batch.schema))
    result = steps.compute(0, Foreign(batch.select(reads)))
    assert result.schema == adds
    return result


def test_sql() -> None:
    steps = Steps([step(sql={"dew": "temp_c - (100 - rh) / 5", "half": "id / 2"}, adds={"half": "float"})], {})
    assert steps.bind(0, BATCH.schema)[0] == ["temp_c", "rh", "id"]
    result = run(steps)
    assert result.schema == pa.schema([("dew", pa.float64()), ("half", pa.float32())])
    assert result.to_pydict() == {"dew": [10.0, None, 30.0], "half": [0.5, 1.0, 1.5]}


def test_casts_keep_the_name() -> None:
    steps = Steps([step(cast={"id": "int32"}, sql={"next": "id + 1"})], {})
    reads, adds = steps.bind(0, BATCH.schema)
    assert reads == ["id"]
    assert adds == pa.schema([("next", pa.int64()), ("id", pa.int32())])
    assert run(steps).to_pydict() == {"next": [2, 3, 4], "id": [1, 2, 3]}
    with pytest.raises(InvalidError, match="`rh`: there is no cast|`rh`: a value does not fit"):
        run(Steps([step(cast={"rh": "int8"})], {}), pa.record_batch({"rh": [1.5]}))


def test_a_cast_column_may_be_computed_anew() -> None:
    steps = Steps([step(cast={"temp_c": "float"}, sql={"temp_c": "temp_c * 1.8 + 32"})], {})
    assert steps.bind(0, BATCH.schema)[1] == pa.schema([("temp_c", pa.float32())])
    assert run(steps).to_pydict() == {"temp_c": [68.0, None, 86.0]}


@pytest.mark.parametrize(
    "back",
    [
        lambda values: pa.record_batch({"new": values}),
        lambda values: pa.table({"new": values}),
        lambda values: Foreign(pa.record_batch({"new": values})),
        lambda values: {"new": values},
        lambda values: {"new": pa.chunked_array([values.slice(0, 1), values.slice(1)])},
        lambda values: {"new": values.to_numpy(zero_copy_only=False)},
        lambda values: {"new": values.to_pylist()},
        lambda values: {"new": pl.Series(values)},
        lambda values: {"new": pd.Series(values.to_pandas())},
        lambda values: pl.DataFrame({"new": pl.Series(values)}),
        lambda values: pd.DataFrame({"new": values.to_pandas()}),
        lambda values: {"new": np.array([40, 0, 60])},
    ],
)
def test_whatever_is_arrow_or_arrays_is_taken_back(back: Any) -> None:
    def double(batch: pa.RecordBatch) -> object:
        assert isinstance(batch, pa.RecordBatch)
        assert batch.schema.names == ["temp_c"]
        return back(pc.multiply(batch["temp_c"].fill_null(0.0), 2.0))

    assert run(python_steps(double)).to_pydict() == {"new": [40.0, 0.0, 60.0]}


def test_a_function_without_inputs_knows_its_rows() -> None:
    steps = python_steps(lambda batch: {"new": [1.0] * batch.num_rows}, reads=[])
    assert run(steps).to_pydict() == {"new": [1.0, 1.0, 1.0]}


def raises(_: pa.RecordBatch) -> object:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: batch, "expected the columns `new`, found `temp_c`"),
        (lambda batch: {"nwe": batch["temp_c"]}, "hint: did you mean `new`?"),
        (lambda batch: {"new": batch["temp_c"], "old": batch["temp_c"]}, "found `new`, `old`"),
        (lambda batch: {}, "found none"),
        (lambda batch: None, "found `NoneType`"),
        (lambda batch: {"new": [1.0]}, "`new`: expected 3 rows, found 1"),
        (lambda batch: {"new": ["x", "y", "z"]}, "`new`: expected an array of `double`"),
        (lambda batch: {"new": pa.array(["x", "y", "z"])}, "`new`: a value does not fit into `double`"),
        (lambda batch: {"new": object()}, "`new`: expected an array of `double`, found `object`"),
        (raises, "`here:made` failed: KeyError: 'lost'"),
        (lambda batch: batch["rh"], "failed: KeyError"),
    ],
)
def test_what_the_function_did_wrong_is_named(function: Function, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        run(python_steps(function))
    assert message in str(caught.value)


def test_missing_inputs_are_named() -> None:
    steps = python_steps(lambda batch: batch, reads=["Temp_C"])
    with pytest.raises(InvalidError, match="there is no column `Temp_C`\n\nhint: did you mean `temp_c`"):
        steps.bind(0, BATCH.schema)
    doubled = pa.schema([("temp_c", pa.float64()), ("temp_c", pa.float64())])
    with pytest.raises(InvalidError, match="the file has 2 columns `temp_c`"):
        Steps([step(sql={"new": "temp_c"})], {}).bind(0, doubled)


def test_wrong_definitions_name_the_step() -> None:
    with pytest.raises(InvalidError, match="step `1→2`: `new`: `now` is not the same"):
        Steps([step(sql={"new": "now()"})], {})
    with pytest.raises(InvalidError, match="step `1→2`: `adds.new`: `dubble`"):
        Steps([step(sql={"new": "1"}, adds={"new": "dubble"})], {})
    with pytest.raises(InvalidError, match="step `1→2`: `cast.new`: "):
        Steps([step(cast={"new": "interval"})], {})


def made(batch: pa.RecordBatch) -> object:
    return {"new": batch["temp_c"]}


def decorated(function: Function) -> Function:
    return function


def test_fingerprints_follow_the_definition(tmp_path: Path) -> None:
    first = fingerprint(step(sql={"a": "b + 1"}))
    assert len(first) == 16
    assert first == fingerprint(step(sql={"a": " b + 1 "}, name="renamed"))
    others = [
        step(sql={"a": "b + 2"}),
        step(sql={"c": "b + 1"}),
        step(sql={"a": "b + 1"}, adds={"a": "float"}),
        step(sql={"a": "b + 1"}, drop=["b"]),
        step(sql={"a": "b + 1"}, rename={"b": "c"}),
        step(sql={"a": "b + 1"}, cast={"b": "float"}),
        StepConfig.model_validate({"from": 1, "to": 3, "sql": {"a": "b + 1"}}),
    ]
    assert len({first, *map(fingerprint, others)}) == 8

    python = step(python="here:made", reads=["temp_c"], adds={"new": "double"})
    assert fingerprint(python, made) == fingerprint(python, made)
    assert fingerprint(python, made) != fingerprint(python, raises)
    # Where the function stands, and what decorates it, does not matter.
    texts = ["def f(batch):\n    return batch\n", "import os\n@str\ndef f(batch):\n    return batch  \n"]
    prints = []
    for number, text in enumerate(texts):
        path = tmp_path / f"module{number}.py"
        path.write_text(text.replace("@str", "@decorated"))
        scope = {"decorated": decorated}
        exec(compile(path.read_text(), str(path), "exec"), scope)  # noqa: S102 - the module was made here
        prints.append(fingerprint(python, scope["f"]))
    assert prints[0] == prints[1]


def test_a_function_without_source_needs_a_revision() -> None:
    python = {"python": "here:made", "reads": ["temp_c"], "adds": {"new": "double"}}
    bound = functools.partial(made)
    with pytest.raises(InvalidError, match="has no source text"):
        fingerprint(step(**python), bound)
    assert fingerprint(step(**python, revision="1"), bound) != fingerprint(step(**python, revision="2"), bound)
