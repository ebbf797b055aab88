"""`regraft deploy`: files that are valid, say what the collection says, and work."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloud import Deployment, until
from places import Place
from regraft.cli import main
from regraft.config_file import load_config
from regraft.deployment import PLACES, deployment_files, write_deployment
from regraft.errors import InvalidError

COLLECTION = {
    "name": "sst",
    "source": {"url": "s3://lab-in/day/l3s/", "include": ["**/*.nc"], "storage_options": {"region": "eu-west-1"}},
    "store": {"url": "s3://lab-out/sst.zarr", "chunks": {"time": 1}},
    "region": {"key": "time"},
}


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` as `{"Ref": "X"}`."""


def short_form(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    assert isinstance(node, yaml.SequenceNode)
    return {suffix: loader.construct_sequence(node, deep=True)}


Loader.add_multi_constructor("!", short_form)


def template(**urls: str) -> Any:
    config = load_config(COLLECTION, overrides={place: {"url": url} for place, url in urls.items()})
    return yaml.load(deployment_files("aws", config)["template.yaml"], Loader)  # noqa: S506 - a safe loader with tags


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_left_open(place: str) -> None:
    files = deployment_files(place, load_config(COLLECTION))
    for name, text in files.items():
        assert not re.search(r"@[a-z_]+@", text), name
        if name.endswith((".yaml", ".yml")):
            yaml.load(text, Loader)  # noqa: S506 - the same
        if name.endswith(".py"):
            compile(text, name, "exec")
    assert load_config(yaml.safe_load(files["collection.yaml"])) == load_config(COLLECTION)
    assert any("s3://lab-in/day/l3s/" in text for text in files.values())


def test_the_template_asks_for_what_the_collection_needs() -> None:
    resources = template()["Resources"]
    rule = resources["FilesChanged"]["Properties"]
    assert rule["EventPattern"]["detail"] == {
        "bucket": {"name": ["lab-in"]},
        "object": {"key": [{"prefix": "day/l3s/"}]},
    }
    statements = resources["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert statements[0]["Resource"] == "arn:aws:s3:::lab-in/day/l3s/*"
    assert statements[1]["Resource"] == ["arn:aws:s3:::lab-out/sst.zarr/*", "arn:aws:s3:::lab-out/sst.zarr.regraft/*"]
    assert resources["FilesToFunction"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    named = set(re.findall(r"'(?:Ref|GetAtt)': '([A-Za-z]+)", repr(resources)))
    assert named <= {"AWS", *resources, *template()["Parameters"]}
    whole = template(source="s3://lab-in")["Resources"]
    assert whole["FilesChanged"]["Properties"]["EventPattern"]["detail"]["object"] == {"key": [{"prefix": ""}]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"source": {"url": "/data"}}, "`source.url`: expected `s3://`, since functions have no disk"),
        ({"store": {"url": "gs://a/b.zarr"}}, "`store.url`: expected `s3://`"),
        ({"store": {"url": "s3://bucket"}}, "`store.url`: expected a prefix below the bucket"),
        ({"store": {"url": 's3://bucket/a"b.zarr'}}, "expected a prefix that can stand in a policy"),
        ({"source": {"preprocess": "tidy.py:tidy"}}, "is a file of this machine"),
    ],
)
def test_what_cannot_work_there_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        deployment_files("aws", load_config(COLLECTION, overrides=overrides))


def test_files_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sst.yaml").write_text(yaml.safe_dump(COLLECTION))
    words = ["deploy", "aws", str(tmp_path / "sst.yaml"), "-o", str(tmp_path / "cloud")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    written = json.loads(capsys.readouterr().out)["files"]
    assert sorted(Path(path).name for path in written) == ["README.md", "app.py", "collection.yaml", "template.yaml"]
    assert all(Path(path).is_file() for path in written)
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 1
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(InvalidError, match="expected one of `aws`, `prefect`, found `asw`"):
        write_deployment("asw", load_config(COLLECTION), tmp_path / "other")


def test_the_flow_is_where_prefect_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_deployment("prefect", load_config(COLLECTION), tmp_path / "flows")
    (deployment,) = yaml.safe_load((tmp_path / "flows" / "prefect.yaml").read_text())["deployments"]
    file, _, name = deployment["entrypoint"].partition(":")
    source = (tmp_path / "flows" / file).read_text()
    assert f"from regraft.flows import {name}\n" in source
    from regraft import flows

    parameters = getattr(flows, name).parameters.properties
    assert set(deployment["parameters"]) <= set(parameters)


@pytest.mark.s3
def test_the_template_works(ministack_server: Any, tmp_path: Path) -> None:
    """The stack as it is written, on a server that knows CloudFormation; the function keeps the store right."""
    place = Place(tmp_path, ministack_server, ministack_server.new_bucket())
    # A store in the same bucket, below a prefix of its own: its objects must not come back as files.
    deployment = Deployment(place, "sst-template", fifo=True)
    endpoint = ministack_server.endpoint
    config = load_config(json.loads(json.dumps(deployment.config).replace("${AWS_ENDPOINT_URL}", endpoint)))
    files = deployment_files("aws", config)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        for name in ("app.py", "collection.yaml"):
            archive.writestr(name, files[name])
    place.put("code/1.zip", code.getvalue())
    stacks = deployment.client("cloudformation")
    stacks.create_stack(
        StackName="regraft-sst",
        TemplateBody=files["template.yaml"],
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in {"CodeBucket": place.bucket, "CodeKey": "code/1.zip", "Timeout": "60"}.items()
        ],
    )

    def state() -> str:
        return str(stacks.describe_stacks(StackName="regraft-sst")["Stacks"][0]["StackStatus"])

    def events() -> list[tuple[str, str]]:
        found = stacks.describe_stack_events(StackName="regraft-sst")["StackEvents"]
        return [(event["LogicalResourceId"], event.get("ResourceStatusReason", "")) for event in found]

    until(lambda: not state().endswith("IN_PROGRESS"), 60, events)
    assert state() == "CREATE_COMPLETE", events()
    outputs = stacks.describe_stacks(StackName="regraft-sst")["Stacks"][0]["Outputs"]
    named = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    deployment.name, deployment.queue, deployment.dead = named["FunctionName"], named["Queue"], named["DeadLetterQueue"]

    deployment.put_days(range(3))
    until(lambda: deployment.settled() and deployment.collection().status()["axis_length"] == 3, 60)
    place.delete(deployment.key(1))
    until(lambda: len(deployment.collection().gaps()["blank"]) == 1, 60)
    deployment.check([0, 2], blank=[1])
    assert deployment.call_function({"detail-type": "Scheduled Event"})["outcome"] == "nothing"
    assert deployment.dead_bodies() == []
    stacks.delete_stack(StackName="regraft-sst")
