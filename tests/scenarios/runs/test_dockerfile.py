"""Actions with a Dockerfile, in real machines without any network: built of an image in a folder, kept, and given up in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.cli.order import describe_source
from firebrick.home import Home
from firebrick.node.event import CancelCause, LogLine
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder
from firebrick.workflow.reader import read_workflow
from tests.image.tools import BUSYBOX, layer, make_layout, staging_of, symlink
from tests.place import make_home
from tests.scenarios.runs.test_runs import repository

pytestmark = pytest.mark.machine
PATIENCE_S = 240.0

TOOLS = (
    "sh",
    "cat",
    "chmod",
    "chown",
    "echo",
    "env",
    "id",
    "ln",
    "ls",
    "mkdir",
    "sleep",
    "stat",
    "tar",
    "test",
    "gzip",
)
ROOT = layer(
    ("bin", None, 0o755, 0),
    ("bin/busybox", BUSYBOX.read_bytes() if BUSYBOX.exists() else b"", 0o755, 0),
    *(symlink(f"bin/{name}", "busybox") for name in TOOLS),
    ("etc", None, 0o755, 0),
    ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n", 0o644, 0),
    ("etc/group", b"root:x:0:\nweb:x:1001:\nstaff:x:50:\n", 0o644, 0),
    ("tmp", None, 0o1777, 0),
)

ACTION = "name: T\ndescription: x\nruns: {using: docker, image: Dockerfile, args: ['hello']}\n"
DOCKERFILE = """\
FROM scratch AS data
COPY --chmod=750 data /of/scratch

FROM tools:1
WORKDIR /work
COPY --chown=web:staff . .
RUN stat -c '%n %a %u:%g' entry.sh data data/deep
USER web
RUN id -u; echo compiled > /tmp/made
USER root
RUN chmod 4755 entry.sh && chown web /work && ln entry.sh hard && ln -s hard soft
RUN --mount=type=cache,target=/cache test ! -e /sys/class/net/eth0 && echo x > /cache/x
RUN test ! -e /cache
COPY --from=data /of /of
ADD files.tar.gz /unpacked/
ENV GREETING="good day"
ENTRYPOINT ["/work/soft"]
"""
ENTRY = """\
#!/bin/sh
echo "$1: $GREETING from what was $(cat /tmp/made)"
stat -c '%n %a %u:%g %h' /work /work/hard /of/scratch/deep/file
cat /unpacked/deep/file
echo "by the action" > made
echo "word=brick" >> "$GITHUB_OUTPUT"
"""

WORKFLOW = """
on: push
jobs:
  build:
    runs-on: base
    steps:
      - uses: actions/checkout@v4
      - run: tar -C mine/data -czf mine/files.tar.gz deep
      - id: made
        uses: ./mine
      - run: cat made; echo "${{ steps.made.outputs.word }}"
      - uses: ./mine
"""
SLOW = "FROM tools:1\nRUN echo begun; sleep 100\n"
FAILING = "FROM tools:1\nRUN echo one \\\n  && ls /nowhere\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    place = tmp_path_factory.mktemp("dockerfile")
    home = make_home(place / "home")
    make_layout(place / "images" / "tools", [ROOT], "1", {"Env": ["PATH=/bin"]})
    home.config_file.write_text(f'[node]\ncontainers = "{place / "images"}"\n')
    return home


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    async with Node.open(home, capacity=2) as node:
        yield node
    assert list(home.machines.iterdir()) == []
    assert staging_of(home) == []


async def order(tmp_path: Path, dockerfile: str) -> RunOrder:
    files = {
        "mine/action.yml": ACTION,
        "mine/Dockerfile": dockerfile,
        "mine/entry.sh": ENTRY,
        "mine/data/deep/file": "deep\n",
    }
    return RunOrder(
        id="run-dockerfile",
        workflow=read_workflow(WORKFLOW, "ci.yml"),
        source=await describe_source(repository(tmp_path / "source", files)),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=512, timeout_s=PATIENCE_S),
    )


async def told(node: Node, wanted: RunOrder) -> tuple[str, list[str]]:
    async with asyncio.timeout(PATIENCE_S), node.start_run(wanted) as run:
        events = [event async for event in run.events()]
        result = await run.result()
    return result.conclusion.value, [event.text for event in events if isinstance(event, LogLine)]


async def test_an_image_is_built_once_and_run(node: Node, tmp_path: Path) -> None:
    conclusion, lines = await told(node, await order(tmp_path, DOCKERFILE))
    assert conclusion == "success", "\n".join(lines)
    said = [
        "hello: good day from what was compiled",
        "/work 755 1000:0 3",
        "/work/hard 4755 1000:50 2",
        "/of/scratch/deep/file 750 0:0 1",
        "deep",
    ]
    expected = [
        *("entry.sh 644 1000:50", "data 755 1000:50", "data/deep 755 1000:50", "1000"),
        *(*said, "by the action", "brick"),
        *said,
    ]
    assert [line for line in lines if line in expected] == expected
    [known] = [line for line in lines if "is here already" in line]
    assert known.startswith("The image of 'mine/Dockerfile' is here already: built-")
    assert lines.count("Making an image of what was built") == 1, "and none of a stage that is only copied of"


async def test_a_command_that_fails_says_its_line(node: Node, tmp_path: Path) -> None:
    conclusion, lines = await told(node, await order(tmp_path, FAILING))
    assert conclusion == "failure"
    assert "one" in lines
    [error] = [line for line in lines if line.startswith("##[error]")]
    assert error.startswith(
        "##[error]mine/Dockerfile:2: `RUN echo one   && ls /nowhere` failed: it exited with status 1"
    )


async def test_a_build_that_is_cancelled_leaves_nothing(node: Node, home: Home, tmp_path: Path) -> None:
    before = sorted(path.name for path in (home.images / "objects").iterdir())
    async with asyncio.timeout(PATIENCE_S), node.start_run(await order(tmp_path, SLOW)) as run:
        async for event in run.events():
            if isinstance(event, LogLine) and event.text == "begun":
                run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"
    assert sorted(path.name for path in (home.images / "objects").iterdir()) == before
    assert list(home.machines.iterdir()) == []
