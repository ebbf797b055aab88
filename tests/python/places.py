"""Where a test puts its files and its store: a folder, or a bucket of one of the test servers; the test is the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from servers import Server


@dataclass
class Place:
    """A folder or a bucket with sources below `incoming/` and a store at `store.zarr`."""

    directory: Path
    """The folder itself, or where a bucket is copied to for reading."""
    server: Server | None = None
    bucket: str = ""
    prefix: str = ""
    """What every key of a bucket begins with: SeaweedFS keeps volumes for each bucket, and has not many."""
    downloads: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        """`local`, `ministack` or `weed`."""
        return self.server.name if self.server else "local"

    @property
    def storage_options(self) -> dict[str, str]:
        """Options of the object store; none on a local disk."""
        return self.server.storage_options if self.server else {}

    def url(self, key: str) -> str:
        """The URL of a key or prefix."""
        return f"s3://{self.bucket}/{self.prefix}{key}" if self.server else str(self.directory / key)

    def put(self, key: str, content: Path | bytes) -> None:
        """Puts one object, as a producer of data would: the newest wins."""
        body = content.read_bytes() if isinstance(content, Path) else content
        if self.server:
            self.server.client().put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body)
        else:
            path = self.directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody who reads meanwhile sees half a file, as on object storage.
            partial = path.with_name(f"{path.name}.partial")
            partial.write_bytes(body)
            partial.rename(path)

    def delete(self, key: str) -> None:
        """Removes one object."""
        if self.server:
            self.server.client().delete_object(Bucket=self.bucket, Key=self.prefix + key)
        else:
            (self.directory / key).unlink()

    def keys(self, prefix: str) -> dict[str, str]:
        """Every key below a prefix, with something that changes when its bytes do (ETag, or time and size)."""
        if self.server:
            paginator = self.server.client().get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            return {
                item["Key"].removeprefix(self.prefix): item["ETag"]
                for page in pages
                for item in page.get("Contents", [])
            }
        found = (path for path in (self.directory / prefix).rglob("*") if path.is_file())
        return {
            path.relative_to(self.directory).as_posix(): f"{path.stat().st_mtime_ns}-{path.stat().st_size}"
            for path in found
        }

    def read_all(self, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix."""
        if self.server:
            client = self.server.client()
            return {
                key: client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
                for key in sorted(self.keys(prefix))
            }
        return {key: (self.directory / key).read_bytes() for key in sorted(self.keys(prefix))}

    def local_store(self, key: str) -> Path:
        """The store as a folder, for a reader that needs no S3 client: itself, or a fresh copy."""
        if not self.server:
            return self.directory / key
        self.downloads += 1
        copy = self.directory / f"copy-{self.downloads}"
        for name, content in self.read_all(f"{key}/").items():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return copy / key
