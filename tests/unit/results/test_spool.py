"""What is written to the disk and removed from it, large as it may be, is so beside the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from io import FileIO
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.node.order import Source
from firebrick.node.pool.template import TemplateShelf
from firebrick.node.source import open_source
from firebrick.results.staging import Body, Staging
from firebrick.spool import Spool

MIB = 1 << 20


class SlowFile(FileIO):
    """A disk that takes less than it is given, when it is told to go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.go_on = threading.Event()
        self.writes = 0

    def write(self, data: object) -> int:
        assert self.go_on.wait(10)
        self.writes += 1
        return super().write(memoryview(data)[:700_000])  # type: ignore[arg-type]


async def test_a_disk_that_is_slow_holds_up_its_writer_alone(tmp_path: Path) -> None:
    digest = hashlib.sha256()
    data = bytes(range(256)) * (5 * MIB // 256)
    with SlowFile(tmp_path / "file") as file:
        spool = Spool(file, digest)

        async def write() -> None:
            for start in range(0, len(data), 10_000):
                await spool.write(data[start : start + 10_000])
            await spool.flush()

        writing = asyncio.create_task(write())
        for _ in range(20):  # the loop goes on
            await asyncio.sleep(0.001)
        assert not writing.done()
        file.go_on.set()
        await writing
        assert file.writes < 20, "pieces are written together"
    assert (tmp_path / "file").read_bytes() == data
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_nothing_is_being_written_when_a_cancelled_writer_has_ended(tmp_path: Path) -> None:
    with SlowFile(tmp_path / "file") as file:
        writing = asyncio.create_task(Spool(file).write(bytes(MIB)))
        await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.sleep(0.01)
        assert not writing.done()
        file.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert (tmp_path / "file").stat().st_size == MIB


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was removed as a tree; never in the thread of the event loop."""
    paths: list[Path] = []
    remove, own = shutil.rmtree, threading.get_ident()

    def noted(path: Path, ignore_errors: bool = False) -> None:
        assert threading.get_ident() != own
        paths.append(Path(path))
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", noted)
    return paths


async def test_blocks_of_an_upload_go_beside_the_loop(tmp_path: Path, removed: list[Path]) -> None:
    async def chunks():
        yield b"block"

    staging = Staging(tmp_path, most=MIB, free=0)
    await staging.receive(1, "o/n", "a", Body(chunks=chunks()))
    assert await staging.blocks(1) == [("a", 5)]
    await staging.discard(1)
    assert removed == [tmp_path / "1"]
    assert await staging.uploads() == []


async def test_what_is_made_of_a_source_goes_beside_the_loop(tmp_path: Path, removed: list[Path]) -> None:
    (tmp_path / "source").mkdir()
    source = Source(path=tmp_path / "source", repository="o/n", ref="refs/heads/main", sha="")
    async with open_source(source, tmp_path / "scratch", limit=MIB):
        (tmp_path / "scratch" / "objects").mkdir()
    assert removed == [tmp_path / "scratch"]
    assert not removed[0].exists()


async def test_a_template_goes_beside_the_loop(tmp_path: Path, removed: list[Path]) -> None:
    class Taken:
        path = tmp_path / "template"

    Taken.path.mkdir()
    shelf = TemplateShelf(Home(tmp_path), driver=None, images=None, tools=None, kept=1)
    await shelf.discard(Taken)
    assert removed == [Taken.path]
    assert not Taken.path.exists()
