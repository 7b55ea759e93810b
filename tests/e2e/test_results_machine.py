"""GitHub's own clients inside real machines that have no network: from a JavaScript action through the relay to the services of the node."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from firebrick.node.action.externals import VERSION
from firebrick.node.event import ArtifactStored, Event, LogLine
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.workflow.reader import read_workflow
from tests.e2e.clients import Clients, install_clients
from tests.place import make_home

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

ACTION = "name: Client\ndescription: runs the clients\nruns: {using: node20, main: client.cjs}\n"
RESOURCES = Resources(vcpus=1, memory_mib=1024, timeout_s=800)


def client(*operations: dict[str, Any], more: str = "") -> str:
    """A step that carries these out and shows what came of it."""
    text = json.dumps(json.dumps(operations))
    return f"""
      - uses: ./client
        env: {{OPERATIONS: {text}, RESULT: /tmp/result.json{more}}}
      - run: "echo result: $(cat /tmp/result.json)"
"""


def make_source(root: Path, clients: Clients) -> Path:
    (root / "client").mkdir(parents=True)
    (root / "client/action.yml").write_text(ACTION)
    shutil.copy(clients.directory / "client.cjs", root / "client")
    return root


async def run(home: Any, source: Path, text: str) -> tuple[list[Event], Path]:
    order = RunOrder(
        id=f"run-{os.getpid()}",
        workflow=read_workflow(text, "ci.yml"),
        source=Source(path=source, repository="acme/rocket", ref="refs/heads/main", sha=""),
        artifact_dir=source.parent / "artifacts",
        resources=RESOURCES,
    )
    async with Node.open(home, capacity=1) as node, node.start_run(order) as started:
        events = [event async for event in started.events()]
        result = await started.result()
    log = "\n".join(event.text for event in events if isinstance(event, LogLine))
    assert result.conclusion == "success", f"{result.message}\n{log}"
    return events, order.artifact_dir


def results(events: list[Event], job: str) -> list[Any]:
    lines = [event.text for event in events if isinstance(event, LogLine) and event.job == job]
    said = [json.loads(line.partition(": ")[2]) for line in lines if line.startswith("result: ")]
    return [each.get("value", each) for results in said for each in results]


async def test_jobs_without_a_network_keep_artifacts_and_caches(tmp_path: Path):
    clients = install_clients()
    home = make_home(tmp_path / "home")
    node = home.cache / f"externals/node-{VERSION}/bin/node"
    node.parent.mkdir(parents=True)
    shutil.copy(clients.node / "bin/node", node)
    work = "/home/runner/work/rocket/rocket"
    upload = {"do": "upload", "client": "artifact-6", "name": "by client", "files": [f"{work}/out/a", f"{work}/out/b"]}
    store = client(
        upload | {"root": f"{work}/out"},
        {"do": "save", "client": "cache-6", "paths": ["out"], "key": "deps-1"},
        {"do": "list", "client": "artifact-2"},
        {"do": "set", "variables": {"ACTIONS_CACHE_SERVICE_V2": ""}},
        {"do": "save", "client": "cache-6", "paths": ["out/a"], "key": "by-version-1"},
        {"do": "restore", "client": "cache-4", "paths": ["out/a"], "key": "by-version-1"},
    )
    load = client(
        {"do": "list", "client": "artifact-6"},
        {"do": "download", "client": "artifact-6", "id": 2, "options": {"path": f"{work}/one"}},
        {"do": "download", "client": "artifact-2", "id": 1, "options": {"path": f"{work}/two"}},
        {"do": "restore", "client": "cache-4", "paths": ["out"], "key": "deps-2", "restoreKeys": ["deps-"]},
    )
    text = f"""
on: push
jobs:
  store:
    runs-on: firebrick-base
    steps:
      - uses: actions/checkout@v4
      - run: "mkdir out; head -c 9000000 /dev/urandom > out/a; echo b > out/b; sha256sum out/a; ls /sys/class/net"
      - uses: actions/upload-artifact@v4
        with: {{name: by step, path: out/b}}
{store}
  load:
    needs: store
    runs-on: firebrick-base
    steps:
      - uses: actions/checkout@v4
{load}
      - run: "find one two -type f | sort; sha256sum out/a one/a"
      - run: 'if [ -n "$ACTIONS_RUNTIME_TOKEN$ACTIONS_RESULTS_URL" ]; then exit 1; fi'
"""
    events, artifacts = await run(home, make_source(tmp_path / "source", clients), text)
    stored, saved, listed, _, by_v1, found_by_v1 = results(events, "store")
    assert stored["size"] > 8_900_000  # more than one block
    assert saved > 0
    assert by_v1 > 0
    assert found_by_v1 == "by-version-1"
    assert sorted(each["name"] for each in listed["artifacts"]) == ["by client", "by step"]
    found, one, two, restored = results(events, "load")
    assert len(found["artifacts"]) == 2
    assert restored == "deps-1"
    assert "error" not in one
    assert "error" not in two
    lines = [event.text for event in events if isinstance(event, LogLine)]
    files = [line for line in lines if line.startswith(("one/", "two/"))]
    assert files in (["one/a", "one/b", "two/b"], ["one/b", "two/a", "two/b"])
    digests = {line.split()[0] for line in lines if line.endswith((" out/a", " one/a"))}
    assert len(digests) == 1
    assert "lo" in lines, "and no other link"
    paths = {event.path for event in events if isinstance(event, ArtifactStored)}
    assert paths == {"by client/a", "by client/b", "by step/b"}
    assert (artifacts / "by client/b").read_text() == "b\n"
    assert list((home.results / "sockets").iterdir()) == []
    token = [line for line in lines if "eyJ" in line]
    assert token == [], "no token is in the log"
