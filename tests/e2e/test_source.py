"""What of a source tree goes into a machine, and that nothing of the host does."""

import os
import subprocess

import pytest

from firebrick.node.errors import SourceError
from firebrick.node.order import Source
from firebrick.node.source import open_source

LIMIT = 1 << 20


def git(repository, *words):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", "-C", str(repository), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    target = tmp_path / "repository"
    target.mkdir()
    git(target, "init", "-q", "-b", "main")
    (target / ".gitignore").write_text("ignored\nbuild/\n")
    (target / "kept").write_text("one")
    (target / "removed").write_text("gone")
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "One")
    (target / "kept").write_text("two")
    git(target, "commit", "-q", "-am", "Two")
    return target


def source_of(repository, **fields):
    values = {"ref": "refs/heads/main", "sha": git(repository, "rev-parse", "HEAD"), **fields}
    return Source(path=repository, repository="octo/hello", **values)


async def test_known_and_unignored_files_and_no_others(repository, tmp_path):
    (repository / "new").write_text("untracked")
    (repository / "ignored").write_text("no")
    (repository / "build").mkdir()
    (repository / "build" / "out").write_text("no")
    (repository / "removed").unlink()
    (repository / "link").symlink_to("/etc/passwd")
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        tree = await reader.tree()
    assert tree.paths == (b".gitignore", b"kept", b"link", b"new")


async def test_a_directory_that_is_no_repository_goes_whole(tmp_path):
    (tmp_path / "plain" / "deep").mkdir(parents=True)
    (tmp_path / "plain" / "deep" / "file").touch()
    async with open_source(
        Source(path=tmp_path / "plain", repository="a/b", ref="", sha=""), tmp_path / "scratch", limit=LIMIT
    ) as reader:
        assert (await reader.tree()).paths == (b"deep/file",)
        assert await reader.history(tmp_path / "git", depth=1) is False


async def test_a_tree_over_the_limit_is_refused(repository, tmp_path):
    (repository / "large").write_bytes(b"x" * (LIMIT + 1))
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        with pytest.raises(SourceError, match=r"it is 1 MiB, the limit is 1 MiB"):
            await reader.tree()


async def test_a_missing_directory(tmp_path):
    with pytest.raises(SourceError, match="there is no directory"):
        async with open_source(
            Source(path=tmp_path / "none", repository="a/b", ref="", sha=""), tmp_path / "scratch", limit=1
        ):
            pass


@pytest.mark.parametrize(("depth", "commits"), [(1, 1), (0, 2), (2, 2)])
async def test_the_history_is_as_deep_as_asked(repository, tmp_path, depth, commits):
    target = tmp_path / "history"
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        assert await reader.history(target, depth=depth)
    assert git(target, "rev-list", "--count", "HEAD") == str(commits)
    assert git(target, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(target, "rev-parse", "HEAD") == git(target, "rev-parse", "origin/main")


async def test_the_index_fits_the_files(repository, tmp_path):
    target = tmp_path / "history"
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        await reader.history(target, depth=1)
    for name in (".gitignore", "kept", "removed"):
        (target / name).write_bytes((repository / name).read_bytes())
    assert git(target, "status", "--short") == ""


async def test_a_commit_without_branch_is_detached(repository, tmp_path):
    target = tmp_path / "history"
    first = git(repository, "rev-parse", "HEAD~1")
    async with open_source(source_of(repository, ref="", sha=first), tmp_path / "scratch", limit=LIMIT) as reader:
        await reader.history(target, depth=1)
    assert git(target, "rev-parse", "HEAD") == first
    assert git(target, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


async def test_nothing_of_the_configuration_gets_in_and_nothing_of_the_repository_runs(repository, tmp_path):
    marker = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook", "credential.helper", "core.pager"):
        git(repository, "config", key, str(script))
    git(repository, "config", "remote.origin.url", "https://user:password@forge.example/octo/hello")
    git(repository, "config", "filter.evil.smudge", str(script))
    (repository / ".git" / "hooks" / "post-checkout").write_text(script.read_text())
    os.chmod(repository / ".git" / "hooks" / "post-checkout", 0o755)
    source = source_of(repository)
    marker.unlink(missing_ok=True)
    target = tmp_path / "history"
    async with open_source(source, tmp_path / "scratch", limit=LIMIT) as reader:
        await reader.tree()
        await reader.history(target, depth=0)
    assert not marker.exists()
    everything = b"".join(p.read_bytes() for p in (target / ".git").rglob("*") if p.is_file())
    for word in (b"password", str(tmp_path).encode(), b"script"):
        assert word not in everything
    assert not (target / ".git" / "hooks").exists()
