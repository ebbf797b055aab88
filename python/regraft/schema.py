"""JSON Schemas for editors and other tools, made from the models, so that they cannot drift from what is accepted."""

from __future__ import annotations

import ast
import inspect
import json
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from regraft import config, migration_config
from regraft.config import CollectionConfig
from regraft.errors import InvalidError
from regraft.migration_config import MigrationSetConfig

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["SCHEMAS", "collection_schema", "migrations_schema", "modeline", "schema_text"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def collection_schema() -> dict[str, Any]:
    """The JSON Schema of a ``kind: zarr-collection`` file.

    What is required is only asked for when nothing is inherited: a file that ``extends`` another may say little.

    Returns:
        The schema, draft 2020-12.

    Example:
        >>> sorted(collection_schema()["properties"])[:3]
        ['$schema', 'extends', 'guards']
    """
    schema = CollectionConfig.model_json_schema(mode="validation", schema_generator=GenerateJsonSchema)
    definitions: dict[str, Any] = schema["$defs"]
    _describe(schema, CollectionConfig.__name__, config)
    required = {name: definitions[name].pop("required", []) for name in ("SourceConfig", "StoreConfig", "RegionConfig")}
    # One word, or a mapping that says more.
    region = definitions["RegionConfig"]["properties"]
    policy = definitions["AxisConfig"]["properties"]["policy"]
    region["axis"] = {
        "anyOf": [{"enum": policy["enum"]}, {"$ref": "#/$defs/AxisConfig"}],
        "default": policy["default"],
        "description": region["axis"]["description"],
    }
    definitions["AxisConfig"]["properties"]["dimension"] = {
        "type": "string",
        "description": "The same as `region.dimension`.",
    }
    run = definitions["RunConfig"]["properties"]
    run["memory"] = {**run["memory"], "type": ["integer", "string"], "default": "2GiB"}
    run["memory"].pop("exclusiveMinimum", None)
    run["workers"]["anyOf"] = [{"const": "auto"}, *run["workers"]["anyOf"]]
    run["workers"]["default"] = "auto"
    wait = definitions["BatchConfig"]["properties"]["wait"]
    wait.update({"type": ["number", "string"], "default": "30s"})
    wait.pop("minimum", None)
    for model, fields in {
        "SourceConfig": ("include", "exclude"),
        "VariablesConfig": ("include", "exclude"),
        "RegionConfig": ("priority",),
    }.items():
        for name in fields:
            said = definitions[model]["properties"][name]
            listed = {key: said.pop(key) for key in ("type", "items")}
            said["anyOf"] = [listed, {"type": "string"}]
    schema["properties"] = {
        "$schema": {"type": "string"},
        "extends": {
            "type": "string",
            "description": "A configuration file, or `definition:NAME`, that this one is merged over.",
        },
        **schema["properties"],
    }
    complete = {
        "required": [name for name in schema.pop("required") if name != "kind"],
        "properties": {
            place: {"required": required[f"{place.capitalize()}Config"]} for place in ("source", "store", "region")
        },
    }
    return {
        "$schema": _DIALECT,
        "$id": "urn:regraft:schema:zarr-collection:1",
        **schema,
        "if": {"required": ["extends"]},
        "else": complete,
    }


def migrations_schema() -> dict[str, Any]:
    """The JSON Schema of a ``kind: migration-set`` file.

    Returns:
        The schema, draft 2020-12.

    Example:
        >>> migrations_schema()["$defs"]["StepConfig"]["required"]
        ['from', 'to']
    """
    schema = MigrationSetConfig.model_json_schema(mode="validation", schema_generator=GenerateJsonSchema)
    definitions: dict[str, Any] = schema["$defs"]
    _describe(schema, MigrationSetConfig.__name__, migration_config)
    run = definitions["RunConfig"]["properties"]
    run["memory"].update({"type": ["integer", "string"], "default": "2GiB"})
    run["memory"].pop("exclusiveMinimum", None)
    for name in ("rate", "bytes_per_second"):
        run[name]["anyOf"] = [*run[name]["anyOf"], {"type": "string"}]
    for model, name in (("DataConfig", "prefixes"), ("EncodeConfig", "bloom"), ("StepConfig", "drop")):
        said = definitions[model]["properties"][name]
        listed = {key: said.pop(key) for key in ("type", "items")}
        said["anyOf"] = [listed, {"type": "string"}]
    schema["properties"] = {
        "$schema": {"type": "string"},
        "extends": {"type": "string", "description": "A configuration file that this one is merged over."},
        **schema["properties"],
    }
    complete = {
        "required": schema.pop("required"),
        "properties": {"data": {"required": definitions["DataConfig"].pop("required")}},
    }
    return {
        "$schema": _DIALECT,
        "$id": "urn:regraft:schema:migration-set:1",
        **schema,
        "if": {"required": ["extends"]},
        "else": complete,
    }


def _describe(schema: dict[str, Any], root: str, module: ModuleType) -> None:
    """Puts what stands below each field of the models into the schema."""
    descriptions = _field_docstrings(module)
    for model, said in {root: schema, **schema["$defs"]}.items():
        for name, text in descriptions[model].items():
            # An alias such as `from` for `from_`.
            shown = name if name in said["properties"] else name.rstrip("_")
            said["properties"][shown]["description"] = text


def _field_docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """What stands below each field of the models, by model and field."""
    found: dict[str, dict[str, str]] = {}
    for model in ast.parse(inspect.getsource(module)).body:
        if not isinstance(model, ast.ClassDef):
            continue
        fields = found.setdefault(model.name, {})
        for field, below in zip(model.body, model.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    fields[name] = inspect.cleandoc(text)
    return found


SCHEMAS = {"collection": collection_schema, "migrations": migrations_schema}
"""The schemas by the name that ``regraft schema`` takes."""


def schema_text(name: str) -> str:
    """A schema as indented JSON.

    Args:
        name: A key of `SCHEMAS`.

    Raises:
        InvalidError: There is no schema of that name.
    """
    if name not in SCHEMAS:
        known = ", ".join(f"`{known}`" for known in SCHEMAS)
        raise InvalidError(f"expected the name of a schema, found `{name}`", f"known: {known}")
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False)


def modeline(path: str) -> str:
    """The first line of a YAML file that tells editors where its schema is.

    Args:
        path: Path or URL of the schema, relative to the YAML file.

    Example:
        >>> modeline("collection.schema.json")
        '# yaml-language-server: $schema=collection.schema.json'
    """
    return f"# yaml-language-server: $schema={path}"
