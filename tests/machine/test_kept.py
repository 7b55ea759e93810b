"""Kept machines, checkpoints and forked matrices in real machines."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from firebrick.home import Home
from firebrick.node.event import JobStarted
from firebrick.node.kept.reopened import STEP_VARIABLE, reopened
from firebrick.node.kept.rerun import Rerun
from firebrick.node.kept.shelf import Kind
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.settings import NodeSettings
from firebrick.workflow.reader import read_workflow
from tests.e2e.test_vm_shell import Terminal
from tests.place import environment, make_home
from tests.unit.node.conftest import Told
from tests.unit.node.matrices import MARK, flow, run_of, without

pytestmark = pytest.mark.machine

PATIENCE_S = 240.0
SETTINGS = NodeSettings(machines=2, checkpoint="before:2")
SECRET = "hunter2-and-more"
FAILING = """
on: push
env: {WORD: brick}
jobs:
  build:
    runs-on: base
    steps:
      - run: |
          echo kiln > clay
          echo TEMPERATURE=900 >> "$GITHUB_ENV"
      - env: {TOKEN: '${{ secrets.TOKEN }}'}
        run: |
          cat clay
          echo "$WORD $TEMPERATURE $TOKEN"
          test -e fixed
      - if: always()
        run: rm clay
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("kept") / "home")


async def run(home: Home, text: str, name: str, settings: NodeSettings = SETTINGS, **fields: object) -> Told:
    source = home.root / "source"
    source.mkdir(exist_ok=True)
    order = RunOrder(
        id=name,
        workflow=read_workflow(textwrap.dedent(text), "ci.yml"),
        source=Source(path=source, repository="octo/hello", ref="refs/heads/main", sha=""),
        artifact_dir=home.root / "artifacts" / name,
        resources=Resources(vcpus=1, memory_mib=384, scratch_mib=256),
        **fields,
    )
    async with asyncio.timeout(PATIENCE_S), Node.open(home, settings=settings) as node, node.start_run(order) as live:
        events = [event async for event in live.events()]
        return Told(events, await live.result())


def left(home: Home) -> list[Path]:
    return list(home.machines.iterdir())


async def test_a_failed_step_is_looked_into_by_two_at_once(home: Home) -> None:
    told = await run(home, FAILING, "failing", secrets={"TOKEN": SECRET})
    assert told.steps() == ["success", "failure", "success"]
    async with asyncio.timeout(PATIENCE_S), Node.open(home, settings=SETTINGS) as node:
        entry = node.kept.find("failing", "build", "2")
        async with reopened(node, entry) as one, reopened(node, entry) as other:
            assert one.machine != other.machine
            for copy in (one, other):
                done = await again(node, copy)
                assert done == (1, f"kiln\nbrick 900 {SECRET}\n")
    for file in entry.path.glob("*.json"):
        assert SECRET not in file.read_text()
    assert left(home) == []


async def again(node: Node, copy) -> tuple[int, str]:
    """Run the step again, over the node's own door, as the command line does."""
    from firebrick.node.socket import wire
    from firebrick.node.socket.caller import call

    request = wire.Execute(
        machine=copy.machine,
        argv=("sh", "-c", f"${STEP_VARIABLE}"),
        env=copy.environment,
        cwd=copy.directory,
        stdin=False,
    )
    said = b""
    async with call(node.socket) as connection:
        await connection.send(request)
        while not isinstance(answer := await connection.receive(), wire.Exited):
            said += answer.data
    return answer.code, said.decode()


async def test_a_run_goes_on_from_its_checkpoint(home: Home) -> None:
    await run(home, FAILING, "first", secrets={"TOKEN": SECRET})
    entry = shelf_of(home).find("first", "build", "before-2", kind=Kind.BEFORE)
    rerun = Rerun(entry=entry, command='cat clay; echo "$WORD $TEMPERATURE $TOKEN"')
    told = await run(home, FAILING, "again", rerun=rerun, secrets={"TOKEN": "another-one"})
    assert told.lines(step=1) == ["kiln", "brick 900 ***"]
    assert told.steps() == ["success", "success"]
    [started] = [event for event in told.events if isinstance(event, JobStarted)]
    assert started.resumed == "first before step 2"
    assert left(home) == []


def shelf_of(home: Home):
    from firebrick.node.kept.shelf import KeptShelf, Quota

    return KeptShelf(home, Quota(mib=SETTINGS.keep_mib, count=SETTINGS.keep_count))


async def test_a_forked_matrix_has_the_results_of_one_that_was_not(home: Home) -> None:
    never = msgspec.structs.replace(SETTINGS, checkpoint="none")
    common = 'run: "head -c 8 /dev/urandom > once"'
    text = flow(
        MARK,
        common=common,
        own="test -s once; exit ${{ matrix.word == 'sand' && 1 || 0 }}",
        strategy="fail-fast: false",
    )
    plain = await run(home, without(text), "plain", never)
    forked = await run(home, text, "forked", never)
    assert run_of(forked) == run_of(plain)
    assert forked.jobs() == {"build.0": "success", "build.1": "failure", "build.2": "success"}
    assert left(home) == []


async def test_a_shell_where_a_step_failed(home: Home) -> None:
    await run(home, FAILING, "shell", secrets={"TOKEN": SECRET})
    program = [sys.executable, "-m", "firebrick.cli.main"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*program, "debug", "shell", "--", "sh", "-c", 'cat clay; echo "$TOKEN"; exit 5'],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(home),
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (5, f"kiln\n{SECRET}\n")
    terminal = Terminal([*program, "debug", "shell", "build"], environment(home, TERM="xterm"))
    try:
        await terminal.expect("step 2 failed with exit code 1")
        await terminal.expect(r"[#$] ")
        terminal.type("pwd; touch fixed; $FIREBRICK_STEP && echo it-$((1 + 1))-works\r")
        await terminal.expect(r"/home/runner/work/hello/hello\r\n")
        await terminal.expect(r"it-2-works\r\n")
        terminal.type("exit 3\r")
        assert await terminal.status() == 3
        assert terminal.settings == terminal.before
    finally:
        terminal.close()
    assert left(home) == []
    assert os.listdir(home.nodes) == []


REPRODUCIBLE = """
on: push
jobs:
  build:
    runs-on: base
    steps:
      - run: |
          mkdir out
          hostname > out/host
          date -u +%F > out/day
          cat /etc/machine-id > out/id
          echo "$SOURCE_DATE_EPOCH $PERL_HASH_SEED" > out/epoch
          grep -E 'stack|heap|libc' /proc/self/maps | cut -d ' ' -f 1,6- > out/layout
      - uses: actions/upload-artifact@v4
        with: {name: out, path: out}
"""


async def test_a_run_is_compared_with_itself(home: Home, tmp_path: Path) -> None:
    """What is fixed is the same in both; what is not is found, and where it is."""
    (tmp_path / "same.yml").write_text(REPRODUCIBLE)
    noise = "date +%N > out/noise; tar -C out --mtime=@0 -cf out/x.tar noise host"
    other = REPRODUCIBLE.replace("          hostname", f"          {noise.split('; ')[0]}\n          hostname")
    other = other.replace("      - uses", f"          {noise.split('; ')[1]}\n      - uses")
    (tmp_path / "other.yml").write_text(other)
    said = {}
    for name in ("same", "other"):
        argv = [
            sys.executable,
            "-m",
            "firebrick.cli.main",
            "run",
            f"{name}.yml",
            "--verify-reproducible",
            "--memory",
            "384",
        ]
        done = await asyncio.to_thread(
            subprocess.run,
            argv,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(home),
            timeout=PATIENCE_S,
        )
        said[name] = done.returncode, done.stdout.splitlines()
    status, lines = said["same"]
    assert status == 0, lines
    assert lines[-1] == "Reproducible: 5 files, the same in both runs."
    status, lines = said["other"]
    assert status == 1, lines
    report = lines[lines.index("Not reproducible: 2 of 7 files differ.") :]
    assert report[1] == "  out/noise"
    assert report[3].startswith("    the first difference is at byte ")
    assert report[4] == "  out/x.tar"
    assert report[-1] == "    noise: its contents"
    assert left(home) == []
