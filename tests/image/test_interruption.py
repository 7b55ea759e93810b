"""Builds that are killed, cancelled or started twice: one image or none, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from firebrick.home import Home
from firebrick.image import ImageStore
from firebrick.process import PIPE, Process, spawn
from tests.image.tools import Recorder, define_oci, entries, layer, staging_of

# Big enough to be in the middle of something, made of what does not shrink.
LAYERS = [
    layer(*((f"file-{number}-{part}", os.urandom(1 << 20), 0o644, 7) for part in range(40))) for number in range(3)
]

BUILD = """\
import asyncio, sys
from pathlib import Path
from firebrick.home import Home
from firebrick.image import ImageStore

class Loud:
    def stage(self, text, *, total=None): print("stage", text, flush=True)
    def advance(self, done, *, total=None): pass
    def line(self, text): pass

image = asyncio.run(ImageStore(Home(Path(sys.argv[1]))).ensure_image(sys.argv[2], progress=Loud()))
print("image", image.digest, flush=True)
"""


def builder(home: Home, definition: Path):
    argv = [sys.executable, "-c", BUILD, home.root, definition]
    return spawn(argv, stdout=PIPE, env={"PYTHONPATH": os.pathsep.join(sys.path)})


async def until(process: Process, word: str) -> str:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith(word):
            return line.strip()
    raise AssertionError(f"the build ended before it said {word!r}")


def descendants(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task")
    children = {int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()}
    return children.union(*(descendants(child) for child in children)) if children else children


def running(pids: set[int]) -> set[int]:
    """Those that are there and have not ended (who reaps them is not ours to say)."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return {pid for pid in pids if alive(pid)}


async def test_a_killed_build_leaves_no_process_and_the_next_one_no_file(home: Home, tmp_path: Path):
    definition = define_oci(tmp_path, LAYERS)
    async with builder(home, definition) as build:
        await until(build, "stage Unpacking")
        tools: set[int] = set()
        while not tools:
            tools = descendants(build.pid)
        # The process alone: what dies with it has to do so by itself.
        os.kill(build.pid, signal.SIGKILL)
        await build.wait()
        async with asyncio.timeout(10):
            while running(tools):
                await asyncio.sleep(0.01)
    assert len(staging_of(home)) == 2, "the directory and its lock"
    store = ImageStore(home)
    assert store.list_images() == []
    assert await store.sweep() == 1
    assert staging_of(home) == []
    assert len(entries((await store.ensure_image(definition)).path)) == 121


async def test_a_cancelled_build_leaves_neither(home: Home, store: ImageStore, tmp_path: Path):
    definition = define_oci(tmp_path, LAYERS)
    unpacking = asyncio.Event()

    class Watch(Recorder):
        def stage(self, text: str, *, total: float | None = None) -> None:
            if text.startswith("Unpacking"):
                unpacking.set()

    others = descendants(os.getpid())
    task = asyncio.create_task(store.ensure_image(definition, progress=Watch()))
    await unpacking.wait()
    while not (tools := descendants(os.getpid()) - others):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert running(tools) == set()
    assert staging_of(home) == []
    assert store.list_images() == []


async def test_two_processes_that_want_the_same_image_build_it_once(home: Home, tmp_path: Path):
    definition = define_oci(tmp_path, LAYERS)
    async with builder(home, definition) as one:
        await until(one, "stage Unpacking")
        async with builder(home, definition) as two:
            assert await until(two, "stage") == "stage Waiting for another process that builds vendor"
            first, second = await until(one, "image"), await until(two, "image")
            assert first == second
            assert await one.wait() == 0
            assert await two.wait() == 0
    assert len(ImageStore(home).list_images()) == 1
