"""A machine's memory is what the files say, whatever is touched in whatever order, until the machine gives pages back."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from firebrick.machine.pager import SOCKET, Pager, serving
from tests.pager.player import PAGE, Machine, machine, near

ZEROS = hashlib.sha256(bytes(PAGE)).hexdigest()


def digests(data: bytes) -> list[str]:
    return [hashlib.sha256(data[at : at + PAGE]).hexdigest() for at in range(0, len(data), PAGE)]


@asynccontextmanager
async def served(
    root: Path, pages: int = 256, page_size: int = PAGE, **options: Any
) -> AsyncIterator[tuple[Pager, Machine]]:
    async with serving(root, **options) as pager, machine(pages, page_size) as player:
        with near(root / SOCKET) as path:
            await player.shake(path=path)
        yield pager, player


@pytest.mark.parametrize("around", [4096, 65536, 2 << 20])
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
async def test_every_page_is_what_the_file_says(root, memory, around, order):
    pages = list(range(256))
    if order == "backwards":
        pages.reverse()
    elif order == "shuffled":
        random.Random(2).shuffle(pages)
    expected = digests(memory.read_bytes())
    async with served(root, memory=memory, around=around) as (pager, player):
        assert await player.digests(pages=pages) == [expected[page] for page in pages]
        assert not pager.ended.done()


async def test_eight_threads_that_want_the_same_pages_at_once_all_get_them(root, memory):
    pages = [page for page in random.Random(3).sample(range(256), 256) for _ in range(4)]
    expected = digests(memory.read_bytes())
    async with served(root, memory=memory, around=16384) as (_, player):
        assert await player.digests(pages=pages, threads=8) == [expected[page] for page in pages]


async def test_only_what_lies_around_a_fault_is_copied(root, memory):
    async with served(root, memory=memory, around=4 * PAGE) as (_, player):
        await player.digests(pages=[9])
        assert await player.resident(offset=0, size=256 * PAGE) == [8, 9, 10, 11]


async def test_regions_find_their_place_in_the_file(root, memory):
    data = memory.read_bytes()
    async with serving(root, memory=memory) as _, machine() as player:
        await player.map(regions=[[0, 64 * PAGE], [192 * PAGE, 64 * PAGE]])
        with near(root / SOCKET) as path:
            await player.shake(path=path)
        for offset in (0, 192 * PAGE):
            expected = hashlib.sha256(data[offset : offset + 64 * PAGE]).hexdigest()
            assert await player.digest(offset=offset, size=64 * PAGE) == expected


async def test_what_the_machine_gives_back_is_zeros_from_then_on(root, memory):
    expected = digests(memory.read_bytes())
    async with served(root, memory=memory) as (_, player):
        await player.digests(pages=[10, 11, 12])
        await player.remove(offset=11 * PAGE, size=PAGE)
        await player.remove(offset=100 * PAGE, size=50 * PAGE)  # never touched before
        assert await player.digests(pages=[10, 11, 12, 99, 100, 149, 150]) == [
            expected[10], ZEROS, expected[12], expected[99], ZEROS, ZEROS, expected[150],
        ]  # fmt: skip
        await player.write(offset=11 * PAGE, text="mine")
        assert await player.read_text(offset=11 * PAGE, size=4) == "mine"
        await player.remove(offset=11 * PAGE, size=PAGE)
        assert await player.digests(pages=[11]) == [ZEROS]


async def test_giving_back_while_eight_threads_touch_never_brings_old_pages_back(root, memory):
    expected = digests(memory.read_bytes())
    async with served(root, memory=memory, around=65536) as (_, player):
        seen = await player.churn(offset=64 * PAGE, pages=64, rounds=40)
        assert seen == [], "a page that was given back had its old content"
        rest = [*range(64), *range(128, 256)]
        assert await player.digests(pages=rest) == [expected[page] for page in rest]


async def test_layers_lie_over_the_base_and_their_holes_let_it_through(root, memory, tmp_path):
    content = bytearray(memory.read_bytes())
    layers = []
    for number, pages in enumerate(([0, 5, 6, 255], [6, 7, 100])):
        layer = tmp_path / f"layer{number}"
        with layer.open("wb") as file:
            file.truncate(256 * PAGE)
            for page in pages:
                data = bytes([number + 1]) * PAGE if page != 100 else bytes(PAGE)
                os.pwrite(file.fileno(), data, page * PAGE)
                content[page * PAGE : (page + 1) * PAGE] = data
        layers.append(layer)
    async with served(root, memory=memory, layers=layers) as (_, player):
        assert await player.digests(pages=list(range(256))) == digests(bytes(content))


async def test_holes_of_the_base_are_zeros_and_take_no_copy(root, tmp_path):
    memory = tmp_path / "sparse"
    with memory.open("wb") as file:
        file.truncate(256 * PAGE)
        os.pwrite(file.fileno(), b"x" * PAGE, 20 * PAGE)
    async with served(root, memory=memory) as (_, player):
        assert await player.digests(pages=list(range(256))) == digests(memory.read_bytes())
        await player.write(offset=0, text="written over zeros")
        assert await player.read_text(offset=0, size=18) == "written over zeros"


HUGE_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture
def huge_pages():
    """Eight of them, as long as the test lasts."""
    before = HUGE_POOL.read_text()
    HUGE_POOL.write_text("8")
    yield
    HUGE_POOL.write_text(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="reserving huge pages needs root")
async def test_huge_pages_come_from_one_file_or_are_put_together(root, tmp_path, huge_pages):
    size = 4 * (2 << 20)
    memory, layer = tmp_path / "memory", tmp_path / "layer"
    content = bytearray(random.Random(4).randbytes(size))
    memory.write_bytes(content)
    with layer.open("wb") as file:
        file.truncate(size)
        os.pwrite(file.fileno(), b"y" * PAGE, (2 << 20) + 7 * PAGE)
    content[(2 << 20) + 7 * PAGE : (2 << 20) + 8 * PAGE] = b"y" * PAGE
    async with served(root, size // PAGE, 2 << 20, memory=memory, layers=[layer]) as (_, player):
        await player.remove(offset=3 * (2 << 20), size=2 << 20)
        content[3 * (2 << 20) :] = bytes(2 << 20)
        assert await player.digest(offset=0, size=size) == hashlib.sha256(content).hexdigest()
