"""Actions of other repositories onto the host: from a mirror and from a forge, by branch, tag and commit, honest and hostile."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from firebrick.forge.clone import clone
from firebrick.lock import hold_lock
from firebrick.node.action.definition import read_from_tree
from firebrick.node.action.store import ActionStore
from firebrick.node.action.trees import Trees
from firebrick.node.errors import ActionError
from firebrick.node.settings import NodeSettings
from firebrick.workflow.uses import RemoteAction, parse_uses
from tests.e2e.git_http import GitServer
from tests.e2e.repository import Repository, make_repository

pytestmark = pytest.mark.network
ACTION = "name: Hello\ndescription: x\nruns: {using: node20, main: index.js}\n"
FILES = {"action.yml": ACTION, "index.js": "console.log(1)\n", "sub/action.yaml": ACTION}


def named(text: str) -> RemoteAction:
    action = parse_uses(text)
    assert isinstance(action, RemoteAction)
    return action


def quiet(_: str) -> None:
    pass


@pytest.fixture
def work(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "work", FILES)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """A job: the trees it has stay while the test lasts."""
    with ExitStack() as stack:
        yield stack


Mirror = Callable[..., Path]


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    """The folder of bare repositories with this one in it, anew each time."""

    def make(work: Repository, below: str = "octo/hello.git") -> Path:
        target = tmp_path / "mirror" / below
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            work.git("init", "--quiet", "--bare", str(target))
        work.git("push", "--quiet", "--mirror", str(target))
        return tmp_path / "mirror"

    return make


def store(tmp_path: Path, **settings: Any) -> ActionStore:
    return ActionStore(tmp_path / "cache", NodeSettings(**settings))


def kept(tmp_path: Path) -> list[str]:
    shelf = (tmp_path / "cache").glob("actions/octo/hello/*")
    return sorted(path.name for path in shelf if path.name != ".lock" and path.suffix != ".size")


@pytest.mark.parametrize("below", ["octo/hello.git", "forge.example/octo/hello.git"])
async def test_branch_tag_and_commit_of_a_mirror(
    tmp_path: Path, work: Repository, mirror: Mirror, below: str, held: ExitStack
) -> None:
    first = work.git("rev-parse", "HEAD")
    work.git("tag", "-a", "v1", "-m", "one")
    second = work.commit({"index.js": "console.log(2)\n"})
    source = store(tmp_path, actions=str(mirror(work, below)))
    trees = [
        await source.fetch(named(f"octo/hello@{ref}"), quiet, held) for ref in ("v1", "main", first, second.upper())
    ]
    assert [tree.commit for tree in trees] == [first, second, first, second]
    assert (trees[0].root / "index.js").read_text() == "console.log(1)\n"
    assert (trees[1].root / "index.js").read_text() == "console.log(2)\n"
    assert not (trees[0].root / ".git").exists()
    assert kept(tmp_path) == sorted([first, second])


async def test_a_tag_that_moves_is_seen_and_a_commit_that_is_kept_needs_no_mirror(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    work.git("tag", "v1")
    source = store(tmp_path, actions=str(mirror(work)))
    first = await source.fetch(named("octo/hello@v1"), quiet, held)
    second = work.commit({"index.js": "2"})
    work.git("tag", "--force", "v1")
    mirror(work)
    assert (await source.fetch(named("octo/hello@v1"), quiet, held)).commit == second
    alone = store(tmp_path, actions=str(tmp_path / "nothing"))
    assert (await alone.fetch(named(f"octo/hello@{first.commit}"), quiet, held)).root == first.root


async def test_a_tag_comes_before_a_branch_of_its_name(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    tagged = work.git("rev-parse", "HEAD")
    work.git("tag", "v1")
    work.git("checkout", "--quiet", "-b", "v1")
    work.commit({"index.js": "branch"})
    source = store(tmp_path, actions=str(mirror(work)))
    tree = await source.fetch(named("octo/hello@v1"), quiet, held)
    assert tree.commit == tagged
    assert (tree.root / "index.js").read_text() == "console.log(1)\n"


async def test_from_a_forge_many_at_once(tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack) -> None:
    work.git("tag", "v1")
    async with GitServer(mirror(work)).running() as server:
        source = store(tmp_path, actions_url=server.url)
        trees = await asyncio.gather(*(source.fetch(named("octo/hello@v1"), quiet, held) for _ in range(4)))
        assert len({tree.root for tree in trees}) == 1
        fetched = sum("git-upload-pack" in path for path in server.paths)
        await source.fetch(named(f"octo/hello@{trees[0].commit}"), quiet, held)
        assert sum("git-upload-pack" in path for path in server.paths) == fetched
    assert kept(tmp_path) == [trees[0].commit]


async def test_what_cannot_be_had_is_said_with_what_to_do(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    folder = mirror(work)
    cases = {
        ("octo/hello@v9", str(folder)): ("no branch or tag 'v9'", "behind the `@`"),
        ("octo/gone@v1", str(folder)): ("no octo/gone.git in", "git clone --mirror"),
        ("octo/hello@v1", ""): ("not told where actions come from", "`actions_url`"),
        (f"octo/hello@{'0' * 40}", str(folder)): (f"has no commit {'0' * 40}", "behind the `@`"),
        ("octo/hello@a..b", str(folder)): ("not a name git could have", "behind the `@`"),
        ("octo/hello@--upload-pack=x", str(folder)): ("not a name git could have", ""),
    }
    for (uses, where), (reason, hint) in cases.items():
        with pytest.raises(ActionError) as raised:
            await store(tmp_path, actions=where).fetch(named(uses), quiet, held)
        assert reason in str(raised.value), uses
        assert hint in raised.value.hint, uses
    assert kept(tmp_path) == []


async def test_a_repository_that_is_too_large_leaves_nothing(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    work.commit({"large": bytes(range(256)) * 8192})
    source = store(tmp_path, actions=str(mirror(work)), actions_limit_mib=1)
    with pytest.raises(ActionError, match="unable to write|larger") as raised:
        await source.fetch(named("octo/hello@main"), quiet, held)
    assert "`actions_limit_mib`" in raised.value.hint
    assert kept(tmp_path) == []


async def test_drafts_of_a_process_that_died_are_removed(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    shelf = tmp_path / "cache" / "actions" / "octo" / "hello"
    (shelf / ".draft-dead").mkdir(parents=True)
    (shelf / ".draft-dead" / "file").write_text("x")
    tree = await store(tmp_path, actions=str(mirror(work))).fetch(named("octo/hello@main"), quiet, held)
    assert kept(tmp_path) == [tree.commit]


async def test_trees_nobody_uses_go_and_others_stay(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    source = store(tmp_path, actions=str(mirror(work)))
    with ExitStack() as before:
        old = await source.fetch(named("octo/hello@main"), quiet, before)
    work.commit({"index.js": "2"})
    mirror(work)
    new = await source.fetch(named("octo/hello@main"), quiet, held)
    for tree in (old, new):
        os.utime(tree.root, (0, 0))
    async with hold_lock(tmp_path / "cache/actions/=lock"):
        await source.sweep()
        assert kept(tmp_path) == sorted([old.commit, new.commit])
    await store(tmp_path).sweep()
    assert kept(tmp_path) == [new.commit]
    assert [path.name for path in (tmp_path / "cache/actions/octo/hello").glob("*.size")] == [f"{new.commit}.size"]


async def test_together_trees_take_no_more_than_they_may(tmp_path: Path, work: Repository, mirror: Mirror) -> None:
    """The one that was not used for longest goes, but none a job uses, in this process or another: then the new one is refused."""
    source = store(tmp_path, actions=str(mirror(work)), actions_cache_mib=2)
    *_, third, fourth = [await large(source, work, mirror, number) for number in range(4)]
    assert kept(tmp_path) == sorted([third, fourth])
    with ExitStack() as held:
        await source.fetch(named(f"octo/hello@{third}"), quiet, held)  # used now, and used last
        fifth = await large(source, work, mirror, 5)
        assert kept(tmp_path) == sorted([third, fifth])
        other = store(tmp_path, actions=str(tmp_path / "mirror"), actions_cache_mib=2)
        with ExitStack() as elsewhere:
            await other.fetch(named(f"octo/hello@{fifth}"), quiet, elsewhere)
            with pytest.raises(ActionError, match="more than 2 MiB") as raised:
                await large(source, work, mirror, 6)
        assert "`actions_cache_mib`" in raised.value.hint
        assert kept(tmp_path) == sorted([third, fifth])
        sixth = await large(source, work, mirror, 7)
        assert kept(tmp_path) == sorted([third, sixth])
        assert (tmp_path / "cache/actions/octo/hello" / third / "index.js").exists()
    assert list((tmp_path / "cache/actions/=gone").iterdir()) == []


async def large(source: ActionStore, work: Repository, mirror: Mirror, number: int) -> str:
    """Fetch a commit of nearly a MiB, and let go of it."""
    work.commit({"large": bytes([number]) * 900_000})
    mirror(work)
    with ExitStack() as held:
        return (await source.fetch(named("octo/hello@main"), quiet, held)).commit


async def test_a_tree_that_is_being_removed_is_fetched_anew(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    source = store(tmp_path, actions=str(mirror(work)))
    with ExitStack() as before:
        tree = await source.fetch(named("octo/hello@main"), quiet, before)
    fd = os.open(tree.root, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert Trees(tmp_path / "cache/actions", 1 << 30).find(tree.root, held) is None
    finally:
        os.close(fd)
    assert (await source.fetch(named(f"octo/hello@{tree.commit}"), quiet, held)).root == tree.root


async def test_an_action_file_that_is_a_link_out_of_the_tree_is_not_read(
    tmp_path: Path, work: Repository, mirror: Mirror, held: ExitStack
) -> None:
    (tmp_path / "secret.yml").write_text(ACTION)
    (work.path / "out").mkdir()
    (work.path / "out" / "action.yml").symlink_to(tmp_path / "secret.yml")
    (work.path / "in").mkdir()
    (work.path / "in" / "action.yml").symlink_to("../action.yml")
    (work.path / "loop").mkdir()
    (work.path / "loop" / "action.yml").symlink_to("action.yml")
    (work.path / "above").symlink_to("../..")
    work.commit({})
    tree = await store(tmp_path, actions=str(mirror(work))).fetch(named("octo/hello@main"), quiet, held)
    assert (await read_from_tree(tree.root, "in", called="in")).name == "Hello"
    assert (await read_from_tree(tree.root, "sub", called="sub")).path == "sub/action.yaml"
    for path in ("out", "loop", "above", "missing"):
        with pytest.raises(ActionError, match=f"Can't find .* under '{path}'"):
            await read_from_tree(tree.root, path, called=path)


async def test_only_so_many_are_on_their_way_at_once(
    tmp_path: Path, work: Repository, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mirror"
    for number in range(12):
        target = folder / "octo" / f"hello{number}.git"
        target.parent.mkdir(parents=True, exist_ok=True)
        work.git("clone", "--quiet", "--bare", str(work.path), str(target))
    busy, most = 0, 0

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            await asyncio.sleep(0.2)
            return await clone(*arguments, **options)
        finally:
            busy -= 1

    monkeypatch.setattr("firebrick.node.action.store.clone", counted)
    source = store(tmp_path, actions=str(folder))
    await asyncio.gather(*(source.fetch(named(f"octo/hello{number}@main"), quiet, held) for number in range(12)))
    assert most == 8
