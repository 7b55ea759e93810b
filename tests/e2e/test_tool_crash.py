"""A process that is killed while it keeps tools: what is there afterwards is whole, and nothing else is left."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from firebrick.node.tool.limits import ToolLimits
from firebrick.node.tool.scope import JobScope
from firebrick.node.tool.shelf import ToolShelf
from tests.place import ROOT

# Keeps one tool after another, and makes room for them, until it is killed.
PROGRAM = """
import asyncio, itertools, os, sys
from pathlib import Path
from firebrick.node.tool.limits import ToolLimits
from firebrick.node.tool.name import ToolName
from firebrick.node.tool.scope import JobScope
from firebrick.node.tool.shelf import ToolShelf

async def main():
    shelf = ToolShelf(Path(sys.argv[1]), ToolLimits(repository_mib=1, free_mib=1, tool_mib=1))
    job = JobScope(tenant="a", repository="o/r", workflow="ci.yml", job="build", read=("main",), write="main")
    for number in itertools.count():
        async with shelf.drafted() as draft:
            (draft / "a/b").mkdir(parents=True)
            for name in range(20):
                (draft / f"a/b/{name}").write_bytes(os.urandom(10_000))
            name = ToolName("node", f"{os.getpid()}.{number}", "x64")
            await shelf.put(draft, name, job)
            await shelf.note(job, [name])
        print("kept", flush=True)

asyncio.run(main())
"""


async def keep_and_die(root: Path, seconds: float) -> None:
    """Killed so long after it has kept its first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(root),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"kept\n"
        await asyncio.sleep(seconds)
    finally:
        process.kill()
        await process.communicate()


async def test_what_was_kept_is_whole_and_the_rest_is_swept(tmp_path: Path):
    shelf = ToolShelf(tmp_path / "tools", ToolLimits(repository_mib=1, free_mib=1, tool_mib=1))
    job = JobScope(tenant="a", repository="o/r", workflow="ci.yml", job="build", read=("main",), write="main")
    chance = random.Random(4)
    for _ in range(5):
        await keep_and_die(shelf._root, chance.uniform(0, 0.1))
        kept = shelf.choose(job, searching=True, most_bytes=1 << 40)
        assert kept
        for tool in kept:
            await shelf.check(tool)
        await shelf.sweep()
        trees = {each.record.sha256 for each in shelf.entries()}
        assert set(os.listdir(shelf._root / "trees")) == trees
        names = [path.name for path in shelf._root.rglob("*") if path.name.startswith(".")]
        assert names == [".lock"]
