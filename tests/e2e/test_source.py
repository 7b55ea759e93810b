"""What of a source tree goes into a machine."""

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
        assert await reader.commit() is None


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


async def test_the_commit_is_the_orders_or_what_is_checked_out(repository, tmp_path):
    first, second = git(repository, "rev-parse", "HEAD~1"), git(repository, "rev-parse", "HEAD")
    for number, (sha, commit) in enumerate(((first, first), ("", second), ("a" * 40, None))):
        async with open_source(source_of(repository, sha=sha), tmp_path / str(number), limit=LIMIT) as reader:
            assert await reader.commit() == commit


async def test_nothing_of_the_repository_runs(repository, tmp_path):
    marker = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "alias.ls-files"):
        git(repository, "config", key, str(script))
    marker.unlink(missing_ok=True)
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        await reader.tree()
        await reader.commit()
    assert not marker.exists()


async def test_submodules_are_told_apart_from_repositories_within(repository, tmp_path):
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},module")
    (repository / "module").mkdir()
    for name in ("within", "module"):
        git(repository, "init", "-q", name)
        (repository / name / "file").touch()
    async with open_source(source_of(repository), tmp_path / "scratch", limit=LIMIT) as reader:
        tree = await reader.tree()
    assert tree.paths == (b".gitignore", b"kept", b"removed")
    assert tree.submodules == (b"module",)
