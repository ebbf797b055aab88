"""Files that put a collection to work somewhere: written, never run.

The templates are plain files of the package (`deployments/`), with names in at signs where the collection says what
belongs there. A template that one can read, keep in one's own repository and change is worth more than a program that
deploys.
"""

from __future__ import annotations

import importlib.resources
import re
from typing import TYPE_CHECKING

from regraft.config_errors import did_you_mean, listed
from regraft.config_file import public_config
from regraft.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.config import CollectionConfig

__all__ = ["PLACES", "deployment_files", "write_deployment"]

PLACES = ("aws", "prefect")
"""Where a collection can be put to work."""

_CONFIG = "collection.yaml"
_FILES = {"aws": ("README.md", "app.py", "template.yaml"), "prefect": ("README.md", "flow.py", "prefect.yaml")}
_NAME = re.compile(r"@([a-z_]+)@")
_BUCKET = re.compile(r"s3a?://([a-z0-9][a-z0-9.-]+)/?(.*)")
# What may stand in a YAML text, an ARN and an event pattern without being quoted there.
_PREFIX = re.compile(r"[A-Za-z0-9!_.()/=+,@~ -]*")


def deployment_files(place: str, config: CollectionConfig) -> dict[str, str]:
    """The files, by name.

    Args:
        place: One of `PLACES`.
        config: The collection.

    Returns:
        Texts by file name; ``collection.yaml`` is the configuration with everything that it extends, without secrets.

    Raises:
        InvalidError: There is no such place, or the collection cannot work there.

    Example:
        >>> from regraft import load_config
        >>> urls = {"source": {"url": "s3://a/b/"}, "store": {"url": "s3://c/d.zarr"}}
        >>> sorted(deployment_files("prefect", load_config({"extends": "definition:sst", **urls})))
        ['README.md', 'collection.yaml', 'flow.py', 'prefect.yaml']
    """
    import yaml

    if place not in PLACES:
        raise InvalidError(
            f"expected one of {listed(PLACES)}, found `{place}`",
            did_you_mean(place, PLACES) or "see `regraft deploy --help`",
        )
    values = {"name": config.name, "source_url": config.source.url, "store_url": config.store.url}
    if place == "aws":
        values |= _buckets(config)
    folder = importlib.resources.files("regraft") / "deployments" / place
    texts = {name: (folder / name).read_text("utf-8") for name in _FILES[place]}
    files = {name: _NAME.sub(lambda found: values.get(found[1], found[0]), text) for name, text in texts.items()}
    tree = public_config(config)
    files[_CONFIG] = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    return files


def write_deployment(place: str, config: CollectionConfig, folder: Path) -> list[Path]:
    """Writes the files into a folder, which is made.

    Args:
        place: One of `PLACES`.
        config: The collection.
        folder: Where to.

    Returns:
        The files.

    Raises:
        InvalidError: As in `deployment_files`, or one of the files exists already.
    """
    files = deployment_files(place, config)
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise InvalidError(f"`{folder / there[0]}` exists already", "name another folder: nothing is written over")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in files]


def _buckets(config: CollectionConfig) -> dict[str, str]:
    values: dict[str, str] = {}
    for place in ("source", "store"):
        url: str = getattr(config, place).url
        found = _BUCKET.fullmatch(url)
        if found is None:
            raise InvalidError(f"`{place}.url`: expected `s3://`, since functions have no disk to keep, found `{url}`")
        prefix = found[2].strip("/")
        if _PREFIX.fullmatch(prefix) is None:
            raise InvalidError(f"`{place}.url`: expected a prefix that can stand in a policy, found `{prefix}`")
        if place == "store" and not prefix:
            raise InvalidError("`store.url`: expected a prefix below the bucket, found none")
        values[f"{place}_bucket"] = found[1]
        values[f"{place}_prefix"] = f"{prefix}/" if place == "source" and prefix else prefix
    if config.source.preprocess is not None and ".py:" in config.source.preprocess:
        raise InvalidError(
            f"`source.preprocess`: `{config.source.preprocess}` is a file of this machine",
            "make it a module, `package.module:function`, and put it into the function beside `app.py`",
        )
    return values
