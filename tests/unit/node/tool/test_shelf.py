"""The shelf of tools: by digest, within limits, of whom they are, and whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from firebrick.machine import drafts
from firebrick.machine.drafts import draft_name
from firebrick.node.errors import ToolError, ToolLostError
from firebrick.node.tool import entry as records
from firebrick.node.tool.digest import measure
from firebrick.node.tool.limits import MOST_VERSIONS, ToolLimits
from firebrick.node.tool.name import ToolName
from firebrick.node.tool.scope import JobScope
from firebrick.node.tool.shelf import ToolShelf

MAIN, PULL = "refs/heads/main", "refs/pull/5/merge"
NODE = ToolName("node", "20.1.0", "x64")
MIB = 1 << 20


def job(
    scope: str | None = MAIN, *, tenant: str = "a", name: str = "build", read: tuple[str, ...] | None = None
) -> JobScope:
    """Of a repository whose default branch is main."""
    told = read or tuple(dict.fromkeys([scope or MAIN, MAIN]))
    return JobScope(tenant=tenant, repository="o/r", workflow="ci.yml", job=name, read=told, write=scope)


@pytest.fixture
def shelf(tmp_path: Path) -> ToolShelf:
    return ToolShelf(tmp_path / "tools", ToolLimits(tool_mib=4, job_mib=3, repository_mib=5, total_mib=8, free_mib=1))


async def put(shelf: ToolShelf, name: ToolName, whose: JobScope | None, content: bytes = b"program") -> bool:
    async with shelf.drafted() as draft:
        (draft / "bin").mkdir(parents=True)
        (draft / "bin/run").write_bytes(content)
        (draft / "bin/run").chmod(0o755)
        os.utime(draft / "bin/run", (1e9, 1e9))
        return await shelf.put(draft, name, whose) is not None


def found(shelf: ToolShelf, whose: JobScope, *, searching: bool = True) -> dict[str, bytes]:
    chosen = shelf.choose(whose, searching=searching, most_bytes=1 << 40)
    return {tool.name.path: (tool.tree / "bin/run").read_bytes() for tool in chosen}


def trees(shelf: ToolShelf) -> list[str]:
    """All that is below its directory of trees, drafts too."""
    return sorted(os.listdir(shelf._trees))


def named(version: int) -> ToolName:
    return ToolName("node", f"{version}.0.0", "x64")


def sized(number: int) -> bytes:
    """What takes a MiB like no other, with its two directories."""
    return bytes([number]) * (MIB - 3 * 4096)


async def test_a_job_that_searches_finds_what_its_repository_keeps(shelf: ToolShelf):
    await put(shelf, NODE, job())
    assert found(shelf, job(name="other")) == {"node/20.1.0/x64": b"program"}
    assert found(shelf, job(name="other"), searching=False) == {}
    assert found(shelf, job(tenant="b")) == {}


async def test_a_job_that_has_run_finds_what_it_has_used(shelf: ToolShelf):
    await put(shelf, NODE, job())
    await put(shelf, ToolName("go", "1.2.3", "x64"), job())
    await shelf.note(job(), [NODE])
    await shelf.note(job(name="lint"), [])
    assert list(found(shelf, job(), searching=False)) == ["node/20.1.0/x64"]
    assert found(shelf, job(name="lint")) == {}
    assert list(found(shelf, job(name="new"))) == ["go/1.2.3/x64", "node/20.1.0/x64"]


async def test_a_branch_never_finds_what_a_pull_request_keeps(shelf: ToolShelf):
    await put(shelf, NODE, job(PULL), b"poison")
    await shelf.note(job(PULL), [NODE])
    assert found(shelf, job()) == {}
    assert shelf.known(job()) == frozenset()
    await put(shelf, NODE, job(), b"good")
    await shelf.note(job(), [NODE])
    assert found(shelf, job()) == {"node/20.1.0/x64": b"good"}
    assert found(shelf, job("refs/pull/6/merge")) == {"node/20.1.0/x64": b"good"}
    assert found(shelf, job(PULL)) == {"node/20.1.0/x64": b"poison"}, "its own"


async def test_a_job_that_may_write_nothing_is_not_noted(shelf: ToolShelf):
    await shelf.note(job(None), [NODE])
    await put(shelf, NODE, job())
    assert list(found(shelf, job(None))) == ["node/20.1.0/x64"]
    assert not (shelf._root / "jobs").exists()


async def test_everybody_who_searches_finds_what_an_administrator_adds_and_that_first(shelf: ToolShelf):
    await put(shelf, NODE, job(), b"of a job")
    await put(shelf, NODE, None, b"of the administrator")
    await put(shelf, ToolName("go", "1.2.3", "x64"), None)
    await shelf.note(job(), [NODE])
    assert found(shelf, job())["node/20.1.0/x64"] == b"of the administrator"
    assert list(found(shelf, job())) == ["go/1.2.3/x64", "node/20.1.0/x64"], "it may come to use it"
    assert list(found(shelf, job(tenant="b"))) == ["go/1.2.3/x64", "node/20.1.0/x64"]
    assert found(shelf, job(tenant="b"), searching=False) == {}


async def test_the_first_of_two_jobs_that_bring_the_same_stays(shelf: ToolShelf):
    assert await put(shelf, NODE, job(), b"first")
    assert await put(shelf, NODE, job(name="other"), b"second")
    assert found(shelf, job()) == {"node/20.1.0/x64": b"first"}
    assert len(trees(shelf)) == 1


async def test_one_tree_for_all_that_is_the_same(shelf: ToolShelf):
    for whose in (job(), job(PULL), job(tenant="b"), None):
        await put(shelf, NODE, whose)
    assert len(trees(shelf)) == 1
    *first, last = shelf.entries()
    await shelf.remove(first)
    assert len(trees(shelf)) == 1
    await shelf.remove([last])
    assert trees(shelf) == []


async def test_a_repository_makes_room_itself_and_pull_requests_first(shelf: ToolShelf):
    clock = 1e9
    for number, scope in enumerate([MAIN, PULL, MAIN, MAIN, MAIN]):
        assert await put(shelf, named(number), job(scope), sized(number))
        clock += 1
        os.utime(records.entry_file(shelf._root, "a", scope, named(number)), (clock, clock))
    assert len(trees(shelf)) == 5
    assert await put(shelf, named(5), job(), sized(5))
    assert [each.name.version for each in shelf.entries()] == [f"{number}.0.0" for number in (0, 2, 3, 4, 5)]
    assert await put(shelf, named(6), job(), sized(6))
    assert [each.name.version for each in shelf.entries()] == [f"{number}.0.0" for number in (2, 3, 4, 5, 6)]
    assert not await put(shelf, named(7), job(PULL), sized(7)), "no branch makes room for a pull request"
    assert len(trees(shelf)) == 5


async def test_all_of_them_together_are_bounded_and_an_administrators_stay(shelf: ToolShelf):
    await put(shelf, named(99), None, sized(99))
    for number in range(12):
        await put(shelf, named(number), job(tenant=f"t{number % 3}"), sized(number))
        os.utime(records.entry_file(shelf._root, f"t{number % 3}", MAIN, named(number)), (1e9 + number, 1e9 + number))
    left = [int(each.name.version.partition(".")[0]) for each in shelf.entries()]
    assert sorted(left) == [4, 5, 6, 7, 8, 9, 10, 11, 99]
    assert len(trees(shelf)) == 9


async def test_empty_files_take_room_too(shelf: ToolShelf):
    await put(shelf, named(0), job())
    async with shelf.drafted() as draft:
        draft.mkdir()
        for number in range(1300):  # of the 5 MiB a repository has
            (draft / str(number)).touch()
        assert await shelf.put(draft, named(1), job(PULL)) is None
    assert [each.name for each in shelf.entries()] == [named(0)]
    assert len(trees(shelf)) == 1


async def test_so_many_of_a_repository_and_no_more(shelf: ToolShelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("firebrick.node.tool.quota.MOST_KEPT", 3)
    for number in range(5):
        await put(shelf, named(number), job(), bytes([number]))
        os.utime(records.entry_file(shelf._root, "a", MAIN, named(number)), (1e9 + number, 1e9 + number))
    await put(shelf, named(9), job(tenant="b"))
    assert [each.name for each in shelf.entries() if each.record.tenant == "a"] == [named(2), named(3), named(4)]
    assert len(trees(shelf)) == 4


async def test_a_job_begins_with_so_much_and_no_more(shelf: ToolShelf):
    for number in range(4):
        await put(shelf, named(number), job(), sized(number))
        os.utime(records.entry_file(shelf._root, "a", MAIN, named(number)), (1e9 + number, 1e9 + number))
    assert [path.split("/")[1] for path in found(shelf, job())] == ["1.0.0", "2.0.0", "3.0.0"]
    chosen = shelf.choose(job(), searching=True, most_bytes=MIB)
    assert len(chosen) == 1, "or as its disk has room for"


async def test_what_a_job_used_is_its_last_few(shelf: ToolShelf):
    names = [named(number) for number in range(MOST_VERSIONS + 2)]
    for name in names:
        await shelf.note(job(), [name])
    await shelf.note(job(), [ToolName("go", "1.2.3", "x64")])
    record = records.read_used(records.used_file(shelf._root, job(), MAIN))
    assert record is not None
    assert list(record.tools) == ["go/1.2.3/x64", *(name.path for name in reversed(names[2:]))]


async def test_a_repository_pushes_no_record_of_another_out(shelf: ToolShelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("firebrick.node.tool.shelf.MOST_JOBS", 3)
    monkeypatch.setattr("firebrick.node.tool.shelf.MOST_JOBS_OF_ALL", 5)

    async def note(tenant: str, names: Iterable[str]) -> None:
        for name in names:
            await shelf.note(job(tenant=tenant, name=name), [NODE])

    def kept() -> list[int]:
        return sorted(len(list(folder.glob("*.json"))) for folder in (shelf._root / "jobs").iterdir())

    await note("quiet", ["build"])
    await note("flood", map(str, range(10)))
    assert kept() == [1, 3]
    await put(shelf, NODE, job(tenant="quiet"))
    assert list(found(shelf, job(tenant="quiet", name="build"), searching=False)) == ["node/20.1.0/x64"]
    await note("another", map(str, range(3)))
    assert sum(kept()) == 5, "and never more of all together"
    for number in range(8):
        await note(f"many-{number}", ["build"])
    assert kept() == [1] * 5, "and nothing of those that have none any more"


def hole(tree: Path) -> None:
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 40)


def as_file(tree: Path) -> None:
    tree.rmdir()
    tree.write_bytes(b"a file")


def as_link(tree: Path) -> None:
    tree.rmdir()
    tree.symlink_to("/etc")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda tree: os.mkfifo(tree / "pipe"), "'pipe' is none"),
        (lambda tree: (tree / "big").write_bytes(b"x" * (5 * MIB)), "more than 4 MiB"),
        (hole, "more than 4 MiB"),
        (lambda tree: (tree / "/".join("d" * 70)).mkdir(parents=True), "64 deep"),
        (as_file, "cannot read the tool"),
        (as_link, "cannot read the tool"),
    ],
)
async def test_what_is_no_tool_is_refused_and_leaves_nothing(
    shelf: ToolShelf, make: Callable[[Path], object], problem: str
):
    with pytest.raises(ToolError, match=problem):
        async with shelf.drafted() as draft:
            draft.mkdir()
            make(draft)
            await shelf.put(draft, NODE, job())
    assert trees(shelf) == []
    assert shelf.entries() == []


async def test_links_are_kept_as_they_are_and_not_followed(shelf: ToolShelf, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"x" * (5 * MIB))
    async with shelf.drafted() as draft:
        draft.mkdir()
        (draft / "up").symlink_to("../../../outside")
        (draft / "absolute").symlink_to(tmp_path / "outside/secret")
        kept = await shelf.put(draft, NODE, job())
    assert kept is not None
    assert kept.size == 0
    assert os.readlink(kept.tree / "up") == "../../../outside"


async def test_a_tool_that_is_not_what_it_was_is_forgotten(shelf: ToolShelf):
    await put(shelf, NODE, job())
    [tool] = shelf.choose(job(), searching=True, most_bytes=1 << 40)
    await shelf.check(tool)
    (tool.tree / "bin/run").write_bytes(b"PROGRAM")
    with pytest.raises(ToolLostError, match="not what it was") as lost:
        await shelf.check(tool)
    assert lost.value.path == NODE.path
    assert shelf.entries() == []
    assert trees(shelf) == []
    await put(shelf, NODE, job())
    await shelf.check(tool)


async def test_a_tool_that_is_gone_is_told(shelf: ToolShelf):
    await put(shelf, NODE, job())
    [tool] = shelf.choose(job(), searching=True, most_bytes=1 << 40)
    await shelf.remove(shelf.entries())
    with pytest.raises(ToolLostError, match="cannot be used"):
        await shelf.check(tool)


async def test_what_a_killed_process_has_left_is_swept(shelf: ToolShelf, monkeypatch: pytest.MonkeyPatch):
    await put(shelf, NODE, job())
    [kept] = trees(shelf)
    with monkeypatch.context() as dead:
        dead.setattr(os, "getpid", lambda: 1 << 22)
        dead.setattr(drafts, "start_of", lambda pid: 7)
        draft, removed = (shelf._trees / draft_name(name) for name in ("tool", "0" * 64))
        record = records.entry_file(shelf._root, "a", MAIN, NODE)
        half = record.with_name(draft_name(record.name))
    for path in (draft, removed):
        (path / "bin").mkdir(parents=True)
    half.write_bytes(b"{")
    (shelf._trees / ("1" * 64)).mkdir()  # its record was not written
    mine = shelf._trees / draft_name("tool")
    mine.mkdir()
    await shelf.sweep()
    assert trees(shelf) == sorted([kept, mine.name])
    assert not half.exists()
    assert len(shelf.entries()) == 1


async def test_a_job_that_is_cancelled_in_the_middle_leaves_nothing_half(shelf: ToolShelf):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def keep() -> None:
        async with shelf.drafted() as draft:
            (draft / "bin").mkdir(parents=True)
            reached.set()
            await go_on.wait()
            await shelf.put(draft, NODE, job())

    task = asyncio.create_task(keep())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trees(shelf) == []
    assert shelf.entries() == []


async def test_a_disk_that_is_full_keeps_no_tool(tmp_path: Path):
    shelf = ToolShelf(tmp_path / "tools", ToolLimits(free_mib=1 << 30))
    with pytest.raises(ToolError, match="MiB free"):
        async with shelf.drafted():
            pass


async def test_records_that_are_none_are_passed_over(shelf: ToolShelf):
    await put(shelf, NODE, job())
    folder = records.folder_of(shelf._root, "a")
    (folder / "broken.json").write_bytes(b"{")
    [record] = [each.record for each in shelf.entries()]
    for number, wrong in enumerate([{"path": "../../x"}, {"path": "node/1"}, {"version": 99}]):
        records.write(folder / f"{number}.json", msgspec.structs.replace(record, **wrong))
    assert list(found(shelf, job())) == ["node/20.1.0/x64"]


def test_the_digest_is_of_all_that_matters(tmp_path: Path):
    def digest(change: Callable[[Path], object] = lambda tree: None) -> str:
        tree = tmp_path / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "d").mkdir(parents=True)
        (tree / "d/f").write_bytes(b"content")
        (tree / "l").symlink_to("d/f")
        os.utime(tree / "d/f", (1e9, 1e9))
        change(tree)
        return measure(tree, most_bytes=1 << 30).sha256

    same = digest()
    assert digest(lambda tree: os.utime(tree / "d", (1, 1))) == same
    changes: list[Callable[[Path], object]] = [
        lambda tree: (tree / "d/f").chmod(0o755),
        lambda tree: os.utime(tree / "d/f", (1, 1)),
        lambda tree: (tree / "d/f").rename(tree / "d/g"),
        lambda tree: (tree / "e").mkdir(),
        lambda tree: ((tree / "l").unlink(), (tree / "l").symlink_to("d/g")),
        lambda tree: ((tree / "d/f").write_bytes(b"Content"), os.utime(tree / "d/f", (1e9, 1e9))),
    ]
    assert len({same, *map(digest, changes)}) == len(changes) + 1


@pytest.mark.parametrize(
    "path",
    [
        *("", "node", "node/1", "node/1/x64/more", "../1/x64", "node/../x64", "node//x64", ".node/1/x64", "n de/1/x64"),
        *("node/1/x64.complete", "node/1/é", f"{'n' * 101}/1/x64", "node/1/x64\n"),
    ],
)
def test_a_name_that_could_mean_another_place_is_none(path: str):
    assert ToolName.from_path(path) is None


@pytest.mark.parametrize("path", ["Java_Temurin-Hotspot_jdk/17.0.9-9.1/x64", "Python/3.13.0-rc.1+b/x64-freethreaded"])
def test_names_of_real_tools_are_names(path: str):
    name = ToolName.from_path(path)
    assert name is not None
    assert name.path == path
