"""Jobs with services and in containers, in real machines without any network: images from a folder of layouts, health checks, and what dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.cli.order import describe_source
from firebrick.home import Home
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder
from firebrick.workflow.reader import read_workflow
from tests.image.tools import BUSYBOX, layer, make_layout, symlink
from tests.place import make_home
from tests.scenarios.runs.test_runs import check, repository

pytestmark = pytest.mark.machine
PATIENCE_S = 240.0

TOOLS = ("sh", "cat", "echo", "env", "httpd", "wget", "sleep", "test", "mkdir", "nc", "hostname", "id", "ls", "true")
ROOT = layer(
    ("bin", None, 0o755, 0),
    ("bin/busybox", BUSYBOX.read_bytes() if BUSYBOX.exists() else b"", 0o755, 0),
    *(symlink(f"bin/{name}", "busybox") for name in TOOLS),
    ("etc", None, 0o755, 0),
    ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n", 0o644, 0),
    ("www", None, 0o755, 0),
    ("www/hello", b"hello from a service\n", 0o644, 0),
    ("tmp", None, 0o1777, 0),
)
WEB = {
    "Entrypoint": ["httpd", "-f", "-h", "/www"],
    "Cmd": ["-p", "8080"],
    "Env": ["PATH=/bin", "WHAT=a container"],
    "User": "web",
    "ExposedPorts": {"8080/tcp": {}},
}

SERVICES = """
on: push
jobs:
  build:
    runs-on: base
    services:
      web:
        image: web:1
        ports: ['9090:8080']
        options: >-
          --health-cmd "wget -q -O /dev/null http://127.0.0.1:8080/hello" --health-interval 1s --health-retries 60
      front:
        image: front:1
        entrypoint: sh
        command: -c "while true; do wget -q -O /tmp/page http://web:8080/hello && break; sleep 0.2; done; httpd -f -h /tmp -p 80"
        ports: [80]
        options: --health-cmd "wget -q -O /dev/null http://127.0.0.1/page" --health-interval 1s --health-retries 60 --user root
    steps:
      - run: curl -sS --max-time 20 http://web:8080/hello
      - run: curl -sS --max-time 20 http://localhost:9090/hello
      - run: curl -sS --max-time 20 http://localhost:${{ job.services.front.ports['80'] }}/page
      - run: curl -sS --max-time 20 http://front/page
      - run: ls /sys/class/net
      - run: "! curl -sS --max-time 20 http://web:8081/hello"
"""

CONTAINER = """
on: push
jobs:
  build:
    runs-on: base
    container: {image: web:1, env: {MORE: '${{ github.ref_name }}'}}
    services:
      web: {image: web:1, options: '--health-cmd "wget -q -O /dev/null http://127.0.0.1:8080/hello" --health-retries 3'}
    steps:
      - run: echo "$WHAT $MORE $(cat /www/hello)"
      - run: wget -q -O - http://web:8080/hello
      - run: test ! -e /usr/bin/curl
"""

ACTION = """
on: push
jobs:
  build:
    runs-on: base
    steps:
      - uses: actions/checkout@v4
      - id: made
        uses: docker://web:1
        with:
          entrypoint: sh
          args: -c 'cat README; cat /www/hello > made; echo "where=$PWD" >> $GITHUB_OUTPUT; test "$(id -u)" = 0; ls'
      - run: cat made; echo "${{ steps.made.outputs.where }}"
"""

DEAD = """
on: push
jobs:
  build:
    runs-on: base
    services:
      db: {image: 'web:1', entrypoint: sh, command: -c 'echo no space for the journal; exit 4', options: --health-cmd false --health-interval 60s}
    steps:
      - run: echo never
"""

DIES = """
on: push
jobs:
  build:
    runs-on: base
    services:
      db: {image: 'web:1', entrypoint: sh, command: -c 'sleep 1; echo out of memory; exit 4'}
    steps:
      - run: sleep 4
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    place = tmp_path_factory.mktemp("containers")
    home = make_home(place / "home")
    make_layout(place / "images" / "web", [ROOT], "1", WEB)
    make_layout(place / "images" / "front" / "1", [ROOT], "1", {"Env": ["PATH=/bin"]})
    home.config_file.write_text(f'[node]\ncontainers = "{place / "images"}"\n')
    return home


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    async with Node.open(home, capacity=3) as node:
        yield node
    assert list(home.machines.iterdir()) == []


async def told(node: Node, text: str, tmp_path: Path):
    order = RunOrder(
        id="run-containers",
        workflow=read_workflow(text, "ci.yml"),
        source=await describe_source(repository(tmp_path / "source", {})),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=512, timeout_s=PATIENCE_S),
    )
    async with asyncio.timeout(PATIENCE_S), node.start_run(order) as run:
        events = [event async for event in run.events()]
        result = await run.result()
    return events, result, [event.text for event in events if type(event).__name__ == "LogLine"]


async def test_services_by_name_and_port(node: Node, tmp_path: Path) -> None:
    events, result, lines = await told(node, SERVICES, tmp_path)
    check({"conclusion": "success"}, events, result)
    assert lines.count("hello from a service") == 4
    assert "lo" in lines, "and no other interface"
    assert not [line for line in lines if line.startswith("e")]


async def test_a_job_in_a_container(node: Node, tmp_path: Path) -> None:
    events, result, lines = await told(node, CONTAINER, tmp_path)
    check({"conclusion": "success"}, events, result)
    assert "a container main hello from a service" in lines
    assert "hello from a service" in lines


async def test_an_action_that_is_an_image(node: Node, tmp_path: Path) -> None:
    events, result, lines = await told(node, ACTION, tmp_path)
    check({"conclusion": "success"}, events, result)
    assert [line for line in lines if line[:2] in ("A ", "he", "/g")] == [
        "A test.",
        "hello from a service",
        "/github/workspace",
    ]


async def test_a_dead_service_is_told_with_its_last_words(node: Node, tmp_path: Path) -> None:
    _, result, lines = await told(node, DEAD, tmp_path)
    assert result.conclusion == "failure"
    message = result.jobs["build"].message
    assert "the service db" in message
    assert "  no space for the journal" in lines


async def test_a_service_that_dies_later_is_told(node: Node, tmp_path: Path) -> None:
    _, result, lines = await told(node, DIES, tmp_path)
    assert result.conclusion == "success"
    assert "The service db has ended: its program exited with status 4" in lines
    assert "  out of memory" in lines
