"""Runs whose jobs put tools into their tool cache, and the runs after them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from firebrick.node.event import CancelCause, LogLine
from firebrick.node.journal import Journal
from firebrick.node.order import Fixed, Resources
from firebrick.node.run.run import start_run
from firebrick.node.tool import inside
from firebrick.node.tool.inside import tools_named
from firebrick.node.tool.limits import ToolLimits
from firebrick.node.tool.name import StoredTool, ToolName
from firebrick.node.tool.shelf import ToolShelf
from tests.unit.node.conftest import Bed, Told
from tests.unit.node.forks import Forks

CACHE = "/opt/hostedtoolcache"
ACTION = "name: setup\nruns: {using: node20, main: index.js}\n"
SETUP = """
    on: push
    jobs:
      build:
        runs-on: base
        steps:
          - uses: ./setup
          - run: echo ran
"""
PLAIN = "on: push\njobs: {build: {runs-on: base, steps: [{run: echo nothing}]}}"
PULL = {
    "event_name": "pull_request",
    "ref": "refs/pull/5/merge",
    "event": {
        "pull_request": {"base": {"ref": "main"}},
        "repository": {"default_branch": "main"},
    },
}


def puts(*names: str, content: str = "program") -> dict[str, str]:
    """An action that puts these tools into the cache."""
    lines = [f"echo {content} >> {CACHE}/{name}/bin/run\necho >> {CACHE}/{name}.complete" for name in names]
    return {"action.yml": ACTION, "index.js": "\n".join(lines)}


@pytest.fixture
def kept(bed: Bed) -> Bed:
    """With a shelf for tools."""
    bed.shelf = ToolShelf(bed.directory / "tools", ToolLimits(tool_mib=2, free_mib=1))
    return bed


async def run(bed: Bed, files: dict[str, str], text: str = SETUP, **source: object) -> Told:
    bed.local("setup", files)
    (bed.directory / "source/setup").mkdir(parents=True, exist_ok=True)
    (bed.directory / "source/setup/action.yml").write_text(files["action.yml"])
    return await bed.run(text, source=source)


def said(told: Told) -> list[str]:
    return [line for line in told.lines() if "tool" in line]


def tools(bed: Bed) -> list[tuple[str, str, bytes]]:
    assert bed.shelf is not None
    found = bed.shelf.entries()
    content = [(bed.shelf._trees / each.record.sha256 / "bin/run").read_bytes() for each in found]
    return [(each.record.scope, each.name.path, data) for each, data in zip(found, content, strict=True)]


async def test_the_next_job_begins_with_what_one_has_added(kept: Bed):
    first = await run(kept, puts("node/20.1.0/x64", "go/1.2.3/x64"))
    assert first.result.conclusion == "success"
    assert said(first) == [
        "The tool go 1.2.3 (x64) is kept for later jobs (0 MiB).",
        "The tool node 20.1.0 (x64) is kept for later jobs (0 MiB).",
    ]
    second = await run(kept, puts())
    assert said(second) == []
    assert kept.lender.tools == [(), ("go/1.2.3/x64", "node/20.1.0/x64")]
    assert [path for _, path, _ in tools(kept)] == ["go/1.2.3/x64", "node/20.1.0/x64"]


async def test_a_job_without_any_of_it_begins_with_none(kept: Bed):
    await run(kept, puts("node/20.1.0/x64"))
    await kept.run(PLAIN.replace("build", "other"))
    assert kept.lender.tools == [(), ()]
    speaks = PLAIN.replace("build", "third").replace("echo nothing", "echo $RUNNER_TOOL_CACHE")
    await kept.run(speaks)
    assert kept.lender.tools[-1] == ("node/20.1.0/x64",)


async def test_a_script_may_add_tools_too(kept: Bed):
    text = PLAIN.replace(
        "echo nothing", f"'echo x >> {CACHE}/mine/1.0/x64/bin/run\n\n    echo >> {CACHE}/mine/1.0/x64.complete'"
    )
    told = await kept.run(text)
    assert said(told) == ["The tool mine 1.0 (x64) is kept for later jobs (0 MiB)."]


async def test_a_pull_request_changes_nothing_that_a_branch_finds(kept: Bed):
    await run(kept, puts("node/20.1.0/x64", content="good"))
    told = await run(kept, puts("node/20.1.0/x64", "node/22.0.0/x64", content="poison"), **PULL)
    assert kept.lender.tools[-1] == ("node/20.1.0/x64",)
    assert said(told) == ["The tool node 22.0.0 (x64) is kept for later jobs (0 MiB)."]
    assert tools(kept) == [
        ("refs/heads/main", "node/20.1.0/x64", b"good\n"),
        ("refs/pull/5/merge", "node/22.0.0/x64", b"poison\n"),
    ]
    await run(kept, puts())
    assert kept.lender.tools[-1] == ("node/20.1.0/x64",)
    await run(kept, puts(), **PULL)
    assert kept.lender.tools[-1] == ("node/20.1.0/x64", "node/22.0.0/x64")


async def test_what_works_on_proposals_with_the_rights_of_a_branch_keeps_nothing(kept: Bed):
    told = await run(kept, puts("node/20.1.0/x64"), event_name="pull_request_target", ref="refs/heads/main")
    assert told.result.conclusion == "success"
    assert (said(told), tools(kept)) == ([], [])


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo x >> {CACHE}/node/1.0/x64/bin/run", "no marker"),
        (f"echo x >> {CACHE}/node/1.0/x64\necho >> {CACHE}/node/1.0/x64.complete", "a file"),
        (f"echo >> {CACHE}/node/1.0/x64.complete", "a marker alone"),
        (f"echo x >> {CACHE}/n de/1.0/x64/f\necho >> {CACHE}/n de/1.0/x64.complete", "no name"),
        (f"echo x >> {CACHE}/node", "no directory"),
    ],
)
async def test_what_is_no_tool_is_passed_over(kept: Bed, script: str, why: str):
    told = await run(kept, {"action.yml": ACTION, "index.js": script})
    assert told.result.conclusion == "success", why
    assert (said(told), tools(kept)) == ([], [])


async def test_a_tool_that_is_too_large_is_told_and_left(kept: Bed):
    large = f"fill 3 1000000 x >> {CACHE}/big/1.0/x64/f\necho >> {CACHE}/big/1.0/x64.complete"
    told = await run(kept, {"action.yml": ACTION, "index.js": large})
    assert told.result.conclusion == "success"
    [line] = said(told)
    assert line.startswith("The tool big 1.0 (x64) is not kept: ")
    assert tools(kept) == []
    assert os.listdir(kept.directory / "tools/trees") == []


async def test_a_job_that_fails_keeps_nothing(kept: Bed):
    told = await run(kept, puts("node/20.1.0/x64"), SETUP.replace("echo ran", "exit 3"))
    assert told.result.conclusion == "failure"
    assert tools(kept) == []
    await run(kept, puts())
    assert kept.lender.tools == [(), ()]


async def test_a_tool_cache_that_is_flooded_is_told_and_left(kept: Bed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inside, "_MOST_ENTRIES", 30)
    flood = "\n".join(f"echo >> {CACHE}/flood/{number}" for number in range(31))
    told = await run(kept, {"action.yml": ACTION, "index.js": flood})
    assert told.result.conclusion == "success"
    assert said(told) == [
        "The tools of this job are not kept: /opt/hostedtoolcache has more than 30 entries where tools and their versions are"
    ]


async def test_a_run_that_is_to_be_the_same_each_time_keeps_nothing(kept: Bed):
    fixed = Resources(fixed=Fixed(time_s=10**9, hostname="same", seed="x"))
    kept.local("setup", puts("node/20.1.0/x64"))
    told = await kept.run(SETUP, resources=fixed)
    assert told.result.conclusion == "success"
    assert (said(told), tools(kept)) == ([], [])


async def test_nothing_is_kept_where_the_settings_say_so(kept: Bed):
    kept.shelf = ToolShelf(kept.directory / "tools", ToolLimits(keep=False))
    told = await run(kept, puts("node/20.1.0/x64"))
    assert (said(told), tools(kept)) == ([], [])


async def test_a_cancellation_ends_the_keeping_and_leaves_nothing_half(kept: Bed, monkeypatch: pytest.MonkeyPatch):
    assert kept.shelf is not None
    reached = asyncio.Event()

    async def put(draft: Path, *_: object) -> None:
        assert draft.is_dir()
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(kept.shelf, "put", put)
    kept.local("setup", puts("node/20.1.0/x64"))
    async with kept.live(SETUP) as live:
        await reached.wait()
        live.cancel(CancelCause.USER)
        result = await live.result()
    assert result.jobs["build"].conclusion == "success", "its steps had all been done"
    assert tools(kept) == []
    assert os.listdir(kept.directory / "tools/trees") == []


async def test_what_the_image_has_is_not_kept(kept: Bed):
    kept.lender.files |= {f"{CACHE}/go/1.2.3/x64/bin/run": "x", f"{CACHE}/go/1.2.3/x64.complete": ""}
    await run(kept, puts("node/20.1.0/x64"))
    assert [path for _, path, _ in tools(kept)] == ["node/20.1.0/x64"]


async def test_what_the_search_path_names_was_used(kept: Bed):
    """Of two that the repository keeps, the other job finds both, and then the one it used."""
    await run(kept, puts("node/20.1.0/x64", "go/1.2.3/x64"))
    files = {"action.yml": ACTION, "index.js": f"echo {CACHE}/go/1.2.3/x64/bin >> $GITHUB_PATH"}
    lint = SETUP.replace("build", "lint")
    for _ in range(2):
        assert (await run(kept, files, lint)).result.conclusion == "success"
    assert kept.lender.tools == [(), ("go/1.2.3/x64", "node/20.1.0/x64"), ("go/1.2.3/x64",)]


def test_names_in_texts():
    texts = [
        f"{CACHE}/node/20.1.0/x64/bin:/usr/bin:{CACHE}/go/1.2.3/x64",
        f"-L{CACHE}/Python/3.12.1/x64/lib -I{CACHE}/../../etc",
        f"{CACHE}/half/1.0 {CACHE}//x/y {CACHE}" + "/" * 100_000,
    ]
    assert {name.path for name in tools_named(texts)} == {"node/20.1.0/x64", "go/1.2.3/x64", "Python/3.12.1/x64"}


async def test_tools_are_part_of_a_template_that_is_made_once(forks: Forks):
    text = f"""
        on: push
        jobs:
          build:
            runs-on: base
            steps:
              - run: |
                  echo x >> {CACHE}/mine/1.0/x64/bin/run
                  echo >> {CACHE}/mine/1.0/x64.complete
    """
    lines = []
    pool = forks.pool()
    for number in range(3):
        journal = Journal.create(forks.directory / "runs")
        order = forks.order(text, id=f"run-{number}")
        async with start_run(order, pool, forks.settings, journal, tools=forks.tools) as live:
            events = [event async for event in live.events()]
            assert (await live.result()).conclusion == "success"
        lines.append([event.text for event in events if isinstance(event, LogLine) and event.stream == "node"])
    kept = "The tool mine 1.0 (x64) is kept for later jobs (0 MiB)."
    made = "Making the template for base (1 vcpus, 128 MiB{}): booting it once."
    assert lines == [[made.format(""), kept], [made.format(", mine 1.0 (x64)")], []]


@pytest.fixture
async def damaged(forks: Forks) -> StoredTool:
    async with forks.tools.drafted() as draft:
        draft.mkdir()
        (draft / "run").write_bytes(b"program")
        tool = await forks.tools.put(draft, ToolName("node", "1.0", "x64"), None)
    assert tool is not None
    (tool.tree / "run").write_bytes(b"another")
    return tool


async def test_a_tool_that_is_damaged_is_left_out_of_the_template(forks: Forks, damaged: StoredTool):
    lines: list[str] = []
    lent = forks.pool().lend("base", forks.resources, purpose="test", say=lines.append, tools=[damaged])
    async with lent as loan:
        assert not await loan.guest.files.exists(f"{CACHE}/node")
    assert "not what it was" in lines[0]
    assert lines[1:] == ["Making the template for base (1 vcpus, 128 MiB): booting it once."]
    assert forks.tools.entries() == []
