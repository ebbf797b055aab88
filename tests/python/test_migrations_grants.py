"""Access that others were granted to single objects: asked for where it can exist, said again, never lost silently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regraft
from proxy import Answer, Proxy, before
from regraft.errors import InvalidError
from servers import Server

pytestmark = pytest.mark.s3

EVERYBODY = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
READERS = f'uri="{EVERYBODY}"'
PARTNER = "a" * 64
SMALL, LARGE, OWN = "small.parquet", "large.parquet", "own.parquet"


@dataclass
class Shared:
    """A bucket behind a proxy, with two objects that others may read, one of them large, and one that they may not."""

    proxy: Proxy
    bucket: str
    folder: Path

    @property
    def client(self) -> Any:
        return Server(self.proxy.server.name, self.proxy.upstream).client()

    def set_ownership(self, ownership: str) -> None:
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        self.client.put_bucket_ownership_controls(Bucket=self.bucket, OwnershipControls=rules)

    def fill(self, **grants: str) -> None:
        for name, rows in ((SMALL, 50), (OWN, 50), (LARGE, 800_000)):
            path = self.folder / name
            pq.write_table(pa.table({"a": range(rows)}), path, use_dictionary=False, compression=None)
            given = {} if name == OWN else grants
            self.client.put_object(Bucket=self.bucket, Key=f"set/{name}", Body=path.read_bytes(), **given)

    def migrations(self, **more: Any) -> regraft.MigrationSet:
        config = {
            "name": "shared",
            "data": {"url": f"s3://{self.bucket}/set/"},
            "steps": [{"from": 1, "to": 2, "sql": {"b": "a + 1"}}],
            **more,
        }
        return regraft.open_migrations(config, storage_options=self.proxy.server.storage_options)

    def access(self) -> dict[str, list[tuple[str, str]]]:
        """Who may do what with each object."""
        found = {}
        for name in (SMALL, LARGE, OWN):
            grants = self.client.get_object_acl(Bucket=self.bucket, Key=f"set/{name}")["Grants"]
            found[name] = sorted(
                (grant["Grantee"].get("URI") or grant["Grantee"]["ID"], grant["Permission"]) for grant in grants
            )
        return found

    def content(self) -> dict[str, bytes]:
        return {
            name: self.client.get_object(Bucket=self.bucket, Key=f"set/{name}")["Body"].read()
            for name in (SMALL, LARGE, OWN)
        }

    def asked(self) -> dict[str, int]:
        """How often was asked for grants: of the bucket, of objects."""
        kinds = {"bucket": "get ownershipControls", "objects": "get acl"}
        return {what: len(self.proxy.kinds(kind)) for what, kind in kinds.items()}


@pytest.fixture
def shared(ministack_server: Server, tmp_path: Path) -> Iterator[Shared]:
    """A bucket whose objects may have grants."""
    with before(ministack_server) as proxy:
        found = Shared(proxy, ministack_server.new_bucket(), tmp_path)
        found.set_ownership("ObjectWriter")
        yield found


@pytest.mark.parametrize("versions", [False, True])
def test_grants_go_with_the_objects_and_come_back(shared: Shared, versions: bool) -> None:
    if versions:
        status = {"Status": "Enabled"}
        shared.client.put_bucket_versioning(Bucket=shared.bucket, VersioningConfiguration=status)
    shared.fill(GrantRead=f'{READERS}, id="{PARTNER}"', GrantReadACP=f'id="{PARTNER}"')
    before, old = shared.access(), shared.content()
    assert (EVERYBODY, "READ") in before[SMALL]
    assert (PARTNER, "READ") in before[LARGE]
    assert len(before[OWN]) == 1
    migrations = shared.migrations()
    plan = migrations.plan(progress=False)
    assert not [text for text in plan["warnings"] if "grants" in text]
    # The bucket once, and one object as a trial.
    assert shared.asked() == {"bucket": 1, "objects": 1}
    without = shared.migrations(carry={"grants": False}).plan(progress=False)
    assert plan.estimate["requests"]["head"] - without.estimate["requests"]["head"] == 3
    shared.proxy.forget()
    report = plan.apply(progress=False)
    report.raise_for_failures()
    assert shared.asked() == {"bucket": 0, "objects": 3}
    # ministack forgets the grants that an upload in parts begins with where the bucket keeps versions.
    forgotten = LARGE if versions else ""
    assert all(shared.access()[name] == grants for name, grants in before.items() if name != forgotten)
    made = {request.path.rsplit("/", 1)[1]: request.headers for request in shared.proxy.kinds("put", "begin")}
    assert made[SMALL]["x-amz-grant-read"] == made[LARGE]["x-amz-grant-read"] == f'{READERS}, id="{PARTNER}"'
    assert made[SMALL]["x-amz-grant-read-acp"] == f'id="{PARTNER}"'
    assert not [name for name in made[OWN] if name.startswith("x-amz-grant")]
    report.roll_back(progress=False).raise_for_failures()
    assert all(shared.access()[name] == grants for name, grants in before.items() if name != forgotten)
    begun = shared.proxy.kinds("begin")
    assert [request.headers["x-amz-grant-read-acp"] for request in begun if request.path.endswith(LARGE)] == [
        f'id="{PARTNER}"'
    ] * 2
    assert shared.content() == old


def test_a_bucket_whose_owner_owns_everything_is_asked_once(shared: Shared) -> None:
    shared.set_ownership("BucketOwnerEnforced")
    shared.fill()
    shared.migrations().plan(progress=False).apply(progress=False).raise_for_failures()
    assert shared.asked() == {"bucket": 1, "objects": 0}
    # Whoever says that there are grants is believed; the service answers that there are none.
    report = shared.migrations(carry={"grants": True}).roll_back(progress=False)
    report.raise_for_failures()
    assert shared.asked() == {"bucket": 1, "objects": 3}


def test_nobody_is_asked_where_grants_are_left_behind(shared: Shared) -> None:
    shared.fill(GrantRead=READERS)
    shared.migrations(carry={"grants": False}).plan(progress=False).apply(progress=False).raise_for_failures()
    assert shared.asked() == {"bucket": 0, "objects": 0}
    assert all(len(grants) == 1 for grants in shared.access().values())


@pytest.mark.parametrize("status", [403, 404, 501])
def test_where_the_bucket_does_not_tell_each_object_is_asked(shared: Shared, status: int) -> None:
    shared.fill(GrantRead=READERS)
    before = shared.access()
    code = {403: "AccessDenied", 404: "OwnershipControlsNotFoundError", 501: "NotImplemented"}[status]
    refused = {"get ownershipControls": Answer.error(status, code)}
    shared.proxy.decide = lambda request: refused.get(request.kind)
    shared.migrations().plan(progress=False).apply(progress=False).raise_for_failures()
    assert shared.asked() == {"bucket": 1, "objects": 4}
    assert shared.access() == before


def test_grants_that_may_not_be_read_are_not_lost(shared: Shared) -> None:
    shared.fill(GrantRead=READERS)
    old, access = shared.content(), shared.access()
    shared.proxy.decide = lambda request: Answer.error(403, "AccessDenied") if request.kind == "get acl" else None
    plan = shared.migrations().plan(progress=False)
    (warning,) = [text for text in plan["warnings"] if "grants" in text]
    assert "no object can be migrated as it is" in warning
    assert "allow `s3:GetObjectAcl` and `s3:PutObjectAcl`; or say `carry: {grants: false}`" in warning
    report = plan.apply(progress=False)
    assert report.counts == {"error": 3}
    for item in report.failed:
        assert "its grants may not be read (`s3:GetObjectAcl`), and would be lost" in item["message"]
        assert "carry: {grants: false}" in item["hint"]
        assert not item.get("retryable")
    assert (shared.content(), shared.access()) == (old, access)


def test_grants_that_may_not_be_written_are_named(shared: Shared) -> None:
    shared.fill(GrantRead=READERS)
    old = shared.content()

    def decide(request: Any) -> Answer | None:
        granting = any(name.startswith("x-amz-grant") for name in request.headers)
        return Answer.error(403, "AccessDenied") if granting else None

    shared.proxy.decide = decide
    report = shared.migrations().plan(progress=False).apply(progress=False)
    assert report.counts == {"done": 1, "error": 2}
    assert all("s3:PutObjectAcl" in item["hint"] for item in report.failed)
    assert all(shared.content()[name] == old[name] for name in (SMALL, LARGE))


def test_grants_are_for_s3_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "one.parquet")
    config = {"name": "shared", "data": {"url": str(tmp_path)}, "steps": [{"from": 1, "to": 2, "sql": {"b": "a + 1"}}]}
    with pytest.raises(InvalidError, match="`carry.grants` is `true`, but the grants of objects at"):
        regraft.open_migrations({**config, "carry": {"grants": True}}).plan(progress=False)
    regraft.open_migrations(config).plan(progress=False).apply(progress=False).raise_for_failures()


def test_seaweedfs_keeps_what_it_knows(weed_server: Server, tmp_path: Path) -> None:
    """It takes canned grants and the headers; what it answers for an object is there after a migration, too."""
    with before(weed_server) as proxy:
        shared = Shared(proxy, weed_server.new_bucket(), tmp_path)
        shared.set_ownership("ObjectWriter")
        shared.fill(GrantRead=READERS)
        before_it = shared.access()
        shared.migrations().plan(progress=False).apply(progress=False).raise_for_failures()
        assert shared.access() == before_it
