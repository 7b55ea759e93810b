"""Cloning from real servers, honest and hostile: the tree arrives or a sentence does, and nothing of the repository runs or is left."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from firebrick.forge.address import Address, Credential, parse_address
from firebrick.forge.clone import clone
from firebrick.forge.errors import AccessError, CloneError, CloneLimitError, ForgeError, RefNotFoundError
from firebrick.forge.limits import CloneLimits
from firebrick.tree import remove as remove_tree
from tests.e2e.git_http import GitServer
from tests.e2e.repository import Repository, make_repository

pytestmark = pytest.mark.network
ALL = frozenset({"https", "http", "ssh", "git", "file"})
SECRET = "t0ken/with:odd@signs"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "served" / "owner" / "name", {"a": "one", "dir/b": "b"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "clone" / "source"


def local(repository: Repository) -> Address:
    return parse_address(f"file://{repository.path}", protocols=ALL)


def nothing_left(target: Path) -> bool:
    return not list(target.parent.glob("*"))


async def test_the_default_branch(repository: Repository, target: Path) -> None:
    checkout = await clone(local(repository), target)
    assert (target / "a").read_text() == "one"
    assert (target / "dir" / "b").read_text() == "b"
    assert (checkout.ref, checkout.sha) == ("refs/heads/main", repository.git("rev-parse", "HEAD"))
    assert [p.name for p in target.parent.iterdir()] == ["source"]


async def test_the_clone_is_a_repository_for_the_job(repository: Repository, target: Path) -> None:
    await clone(local(repository), target, branch="main")
    cloned = Repository(target)
    assert cloned.git("status", "--porcelain", "--branch") == "## main"
    assert cloned.git("rev-list", "--count", "HEAD") == "1"
    assert cloned.git("config", "remote.origin.url") == local(repository).url
    assert list((target / ".git").glob("hooks/*")) == []


async def test_a_branch_a_tag_and_every_way_to_name_a_commit(repository: Repository, target: Path) -> None:
    old = repository.git("rev-parse", "HEAD")
    repository.git("tag", "v1")
    repository.git("checkout", "--quiet", "-b", "feature/x")
    new = repository.commit({"a": "two"})
    repository.git("checkout", "--quiet", "main")
    for branch, commit, sha, ref in (
        ("feature/x", "", new, "refs/heads/feature/x"),
        ("v1", "", old, "refs/tags/v1"),
        ("feature/x", new, new, "refs/heads/feature/x"),
        ("feature/x", old, old, "refs/heads/feature/x"),
        ("feature/x", old[:7], old, "refs/heads/feature/x"),
        ("feature/x", new[:10], new, "refs/heads/feature/x"),
        ("", old, old, old),
        ("", old[:12], old, "refs/heads/main"),
    ):
        checkout = await clone(local(repository), target, branch=branch, commit=commit)
        assert (checkout.sha, checkout.ref) == (sha, ref)
        assert (target / "a").read_text() == ("two" if sha == new else "one")
        remove_tree(target)


async def test_a_commit_deep_in_the_history_is_found(repository: Repository, target: Path) -> None:
    wanted = repository.commit({"a": "wanted"})
    for number in range(80):
        repository.commit({"a": str(number)})
    checkout = await clone(local(repository), target, branch="main", commit=wanted[:9])
    assert checkout.sha == wanted
    assert (target / "a").read_text() == "wanted"


@pytest.mark.parametrize(
    ("branch", "commit"), [("none", ""), ("main", "1" * 40), ("main", "1" * 8), ("", "1" * 40), ("none", "1" * 40)]
)
async def test_what_is_not_there(repository: Repository, target: Path, branch: str, commit: str) -> None:
    with pytest.raises(RefNotFoundError) as caught:
        await clone(local(repository), target, branch=branch, commit=commit)
    assert caught.value.hint
    assert nothing_left(target)


async def test_no_repository_and_an_empty_one(tmp_path: Path, target: Path) -> None:
    with pytest.raises(AccessError):
        await clone(parse_address(f"file://{tmp_path}/none", protocols=ALL), target)
    with pytest.raises(RefNotFoundError, match="no default branch"):
        await clone(local(make_repository(tmp_path / "empty")), target)
    assert nothing_left(target)


async def test_nothing_of_the_users_configuration_is_used(
    repository: Repository, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, home = tmp_path / "marker", tmp_path / "home"
    hook = home / "template" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\nfsmonitor = "touch {marker}; false"\nhooksPath = {hook.parent}\n[init]\ntemplateDir = {home}/template\n'
        f'[filter "evil"]\nsmudge = touch {marker}\n[url "file:///nowhere"]\ninsteadOf = {local(repository).url}\n'
    )
    repository.commit({".gitattributes": "* filter=evil\n"})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "template"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.hooksPath'='{hook.parent}'")
    await clone(local(repository), target)
    assert (target / "a").read_text() == "one"
    assert not marker.exists()


async def test_hooks_and_configuration_of_the_repository_stay_where_they_are(
    repository: Repository, target: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    for name in ("post-checkout", "post-merge", "reference-transaction"):
        hook = repository.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(0o755)
    repository.git("config", "core.fsmonitor", f"touch {marker}; false")
    repository.git("config", "uploadpack.packObjectsHook", f"touch {marker}; exec")
    await clone(local(repository), target)
    assert not marker.exists()


async def test_submodules_are_left_alone(repository: Repository, target: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", {"x": "x"})
    modules = repository.blob(f'[submodule "m"]\n\tpath = m\n\turl = {other.path}\n\tupdate = checkout\n'.encode())
    repository.point_main_at(
        repository.tree(("100644", ".gitmodules", modules), ("160000", "m", other.git("rev-parse", "HEAD")))
    )
    await clone(local(repository), target)
    assert list((target / "m").iterdir()) == []


@pytest.mark.parametrize("url", ["ext::sh -c touch% {marker}", "--upload-pack=touch {marker}", "-u./x"])
async def test_submodule_addresses_that_are_commands_are_refused(
    repository: Repository, target: Path, tmp_path: Path, url: str
) -> None:
    marker = tmp_path / "marker"
    modules = repository.blob(
        f'[submodule "m"]\n\tpath = m\n\turl = "{url.format(marker=marker)}"\n\tupdate = !touch {marker}\n'.encode()
    )
    link = repository.git("rev-parse", "HEAD")
    repository.point_main_at(repository.tree(("100644", ".gitmodules", modules), ("160000", "m", link)))
    with pytest.raises(CloneError):
        await clone(local(repository), target)
    assert not marker.exists()
    assert nothing_left(target)


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git", "git~1", ".g\u200cit", ".git ", "..", "."])
async def test_trees_that_would_write_into_git_itself_are_refused(
    repository: Repository, target: Path, name: str
) -> None:
    hook = repository.blob(b"#!/bin/sh\ntouch /tmp/firebrick-marker\n")
    inner = repository.tree(("100755", "post-checkout", hook))
    hooks = repository.tree(("40000", "hooks", inner))
    repository.point_main_at(repository.tree(("40000", name, hooks)))
    with pytest.raises(CloneError):
        await clone(local(repository), target)
    assert nothing_left(target)


async def test_a_link_and_a_directory_of_one_name_do_not_write_through_the_link(
    repository: Repository, target: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link, content = repository.blob(str(outside).encode()), repository.blob(b"x")
    inner = repository.tree(("100644", "written", content))
    for entries in ((("120000", "d", link), ("40000", "d", inner)), (("120000", "D", link), ("40000", "d", inner))):
        repository.point_main_at(repository.tree(*entries))
        try:
            await clone(local(repository), target)
            remove_tree(target)
        except ForgeError:
            assert nothing_left(target)
        assert list(outside.iterdir()) == []


async def test_links_are_kept_as_links(repository: Repository, target: Path) -> None:
    (repository.path / "link").symlink_to("/etc/passwd")
    repository.commit({})
    await clone(local(repository), target)
    assert (target / "link").readlink() == Path("/etc/passwd")


@pytest.mark.parametrize("content", [os.urandom(6 << 20), bytes(64 << 20)], ids=["incompressible", "bomb"])
async def test_the_size_limit_holds_while_it_runs(repository: Repository, target: Path, content: bytes) -> None:
    repository.commit({"large": content})
    with pytest.raises(CloneLimitError) as caught:
        await clone(local(repository), target, limits=CloneLimits(size_mib=4))
    assert local(repository).url in str(caught.value)
    assert nothing_left(target)


async def test_many_small_files_count_too(repository: Repository, target: Path) -> None:
    repository.commit({f"many/{number}": "" for number in range(300)})
    with pytest.raises(CloneLimitError, match="more than 200 files"):
        await clone(local(repository), target, limits=CloneLimits(entries=200))
    assert nothing_left(target)


async def test_a_tree_that_unfolds_without_end_is_ended(repository: Repository, target: Path) -> None:
    tree = repository.tree(*(("100644", str(i), repository.blob(b"x")) for i in range(10)))
    for _ in range(10):
        tree = repository.tree(*(("40000", str(i), tree) for i in range(10)))
    repository.point_main_at(tree)
    with pytest.raises(CloneLimitError):
        await clone(local(repository), target, limits=CloneLimits(size_mib=64, seconds=3))
    assert nothing_left(target)


async def test_a_silent_server_is_given_up(tmp_path: Path, target: Path) -> None:
    async with GitServer(tmp_path, silent=True).running() as server:
        with pytest.raises(CloneLimitError, match=r"longer than 0\.5 s"):
            await clone(parse_address(f"{server.url}/o/n", protocols=ALL), target, limits=CloneLimits(seconds=0.5))
    assert nothing_left(target)


async def test_a_cancelled_clone_leaves_nothing(tmp_path: Path, target: Path) -> None:
    asked = asyncio.Event()
    async with GitServer(tmp_path, silent=True, on_request=asked.set).running() as server:
        task = asyncio.create_task(clone(parse_address(f"{server.url}/o/n", protocols=ALL), target))
        await asyncio.wait_for(asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert nothing_left(target)


async def test_over_http_with_a_commit_by_name(repository: Repository, target: Path, tmp_path: Path) -> None:
    old = repository.git("rev-parse", "HEAD")
    repository.commit({"a": "two"})
    async with GitServer(tmp_path / "served").running() as server:
        address = parse_address(f"{server.url}/owner/name", protocols=ALL)
        checkout = await clone(address, target, branch="main", commit=old)
    assert checkout.sha == old
    assert address.repository == "owner/name"
    assert server.authorizations == []


def secret_in_arguments() -> list[str]:
    """Command lines of any process of this host that hold the secret."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if SECRET in line or "t0ken" in line:
                found.append(line)
    return found


def with_credential(server: GitServer) -> Address:
    return dataclasses.replace(
        parse_address(f"{server.url}/owner/name", protocols=ALL), credential=Credential("me", SECRET)
    )


async def test_a_credential_is_used_and_seen_by_nobody(repository: Repository, target: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    server = GitServer(
        tmp_path / "served", credential=f"me:{SECRET}", on_request=lambda: seen.extend(secret_in_arguments())
    )
    async with server.running():
        await clone(with_credential(server), target)
    assert server.authorizations
    assert seen == []
    assert (target / "a").read_text() == "one"
    assert [path for path in target.rglob("*") if path.is_file() and b"t0ken" in path.read_bytes()] == []


async def test_a_server_that_tells_the_secret_is_not_repeated(
    repository: Repository, target: Path, tmp_path: Path
) -> None:
    server = GitServer(
        tmp_path / "served", credential="other:one", refusal=f"your token {SECRET} ({{authorization}}) is wrong\x1b[31m"
    )
    async with server.running():
        with pytest.raises(AccessError) as caught:
            await clone(with_credential(server), target)
    said = f"{caught.value} {caught.value.hint} {caught.value!r} {caught.value.__cause__} {caught.value.__context__}"
    assert SECRET not in said
    assert server.authorizations[0].removeprefix("Basic ") not in said
    assert "\x1b" not in said
    assert nothing_left(target)


async def test_a_redirect_does_not_carry_the_secret_away(repository: Repository, target: Path, tmp_path: Path) -> None:
    thief, server = GitServer(tmp_path / "served"), GitServer(tmp_path / "served")
    async with thief.running(), server.running():
        server.redirect = thief.url
        with pytest.raises(ForgeError):
            await clone(with_credential(server), target)
    assert server.authorizations
    assert thief.paths == []


async def test_without_a_secret_a_moved_repository_is_followed(
    repository: Repository, target: Path, tmp_path: Path
) -> None:
    there, server = GitServer(tmp_path / "served"), GitServer(tmp_path / "served")
    async with there.running(), server.running():
        server.redirect = there.url
        await clone(parse_address(f"{server.url}/owner/name", protocols=ALL), target)
    assert (target / "a").read_text() == "one"


async def test_a_redirect_into_the_file_system_is_not_followed(
    repository: Repository, target: Path, tmp_path: Path
) -> None:
    async with GitServer(tmp_path / "served", redirect=f"file://{tmp_path}/served").running() as server:
        with pytest.raises(ForgeError):
            await clone(parse_address(f"{server.url}/owner/name", protocols=ALL), target)
    assert nothing_left(target)


async def test_what_is_only_proposed_for_a_branch_is_not_of_it(repository: Repository, target: Path) -> None:
    main = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "-b", "stranger")
    proposed = repository.commit({"a": "evil"})
    repository.git("update-ref", "refs/pull/7/head", proposed)
    repository.git("checkout", "--quiet", "main")
    repository.git("branch", "--quiet", "-D", "stranger")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    later = repository.commit({"a": "later"})
    for commit in (proposed, proposed[:9]):
        with pytest.raises(RefNotFoundError, match="main has no commit") as caught:
            await clone(local(repository), target, branch="main", commit=commit)
        assert "Without a branch" in caught.value.hint
        assert nothing_left(target)
    # By itself, or as what it is, it is not of a branch.
    for branch, ref in (("", proposed), ("refs/pull/7/head", "refs/pull/7/head")):
        checkout = await clone(local(repository), target, branch=branch, commit=proposed)
        assert (checkout.sha, checkout.ref) == (proposed, ref)
        remove_tree(target)
    checkout = await clone(local(repository), target, branch="main", commit=main)
    assert (checkout.sha, checkout.ref) == (main, "refs/heads/main")
    assert Repository(target).git("rev-parse", "refs/remotes/origin/main") == later


async def test_which_files_differ(repository: Repository, target: Path) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit({"dir/ü \n": "x", "b": "y"})
    repository.git("mv", "a", "c")
    last = repository.commit({"b": "z"})
    for compare, changed in (
        (first, ("a", "b", "c", "dir/ü \n")),
        ("^", ("a", "b", "c")),
        ("0" * 40, None),
        ("1" * 40, None),
        ("", None),
    ):
        checkout = await clone(local(repository), target, branch="main", commit=last, compare=compare)
        assert checkout.changed == changed
        assert (checkout.sha, Repository(target).git("status", "--porcelain")) == (last, "")
        remove_tree(target)
    alone = make_repository(target.parent.parent / "alone", {"only": "x"})
    assert (await clone(local(alone), target, compare="^")).changed == ("only",)


async def test_too_many_files_are_not_told(repository: Repository, target: Path) -> None:
    blob = repository.blob(b"x")
    names = [("100644", f"{number:0250}", blob) for number in range(1100)]
    repository.point_main_at(repository.tree(*names))
    assert (await clone(local(repository), target, compare="^")).changed is None
