"""`actions/checkout` in all its ways: what git says in the workspace is what it would say after the action itself."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from pathlib import Path

import pytest

from firebrick.forge.address import Credential, parse_address
from firebrick.forge.errors import CloneLimitError, ForgeError, RefNotFoundError
from firebrick.forge.limits import CloneLimits
from firebrick.node.errors import CheckoutError, OriginError
from firebrick.node.event import CancelCause
from firebrick.node.order import Source
from firebrick.node.settings import NodeSettings
from tests.e2e.git_http import GitServer
from tests.e2e.repository import Repository, make_repository
from tests.e2e.workspaces import Workspaces
from tests.unit.node.conftest import Bed, DoubleActions, DoubleLender, Told

pytestmark = pytest.mark.network
TREE = {"top": "1", "a/x": "x", "a/b/y": "y", "c/z": "z"}


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """The run's own repository: main with two commits and a tag at the first, and another branch."""
    repository = make_repository(tmp_path / "a place" / "own%41", TREE)
    repository.git("tag", "--annotate", "v1", "--message", "one")
    repository.git("branch", "feature/x")
    repository.commit({"top": "2"}, "two")
    return repository


def source_of(repository: Repository, **fields: object) -> Source:
    given = {"ref": "refs/heads/main", "sha": repository.git("rev-parse", "HEAD"), "repository": "octo/hello"}
    return Source(path=repository.path, **{**given, **fields})  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, own: Repository) -> Workspaces:
    return Workspaces(tmp_path / "made", source_of(own), {"actions": str(tmp_path / "mirror")})


@pytest.fixture(autouse=True)
def _made(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()


def mirrored(tmp_path: Path, name: str, files: dict[str, str | bytes]) -> Repository:
    """A repository of which there is a mirror, which `push` brings up to date."""
    repository = make_repository(tmp_path / "work" / name, files)
    repository.git("init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "mirror" / f"{name}.git"))
    repository.git("remote", "add", "mirror", str(tmp_path / "mirror" / f"{name}.git"))
    repository.git("push", "--quiet", "--mirror", "mirror")
    return repository


def told(workspace: Repository) -> str:
    return workspace.git("status", "--porcelain", "--branch")


# --- the run's own repository ---


async def test_a_branch_is_checked_out_with_its_tracking(place: Workspaces, own: Repository) -> None:
    workspace, made = await place.checkout()
    assert told(workspace) == "## main...origin/main"
    assert workspace.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert workspace.git("rev-parse", "HEAD", "origin/main") == "\n".join([own.git("rev-parse", "HEAD")] * 2)
    assert workspace.git("rev-list", "--count", "HEAD") == "1"
    assert workspace.git("remote", "get-url", "origin") == "https://github.com/octo/hello"
    assert (made.ref, made.commit) == ("refs/heads/main", own.git("rev-parse", "HEAD"))


async def test_what_is_not_committed_is_run(place: Workspaces, own: Repository) -> None:
    (own.path / "top").write_text("changed")
    (own.path / "new").write_text("new")
    (own.path / "c" / "z").unlink()
    workspace, _ = await place.checkout()
    assert told(workspace).splitlines()[1:] == [" D c/z", " M top", "?? new"]
    assert (workspace.path / "top").read_text() == "changed"


async def test_the_whole_history_has_branches_and_tags(place: Workspaces, own: Repository) -> None:
    workspace, _ = await place.checkout(fetch_depth="0")
    assert workspace.git("describe", "--tags") == f"v1-1-g{own.git('rev-parse', '--short', 'HEAD')}"
    assert workspace.git("diff", "--name-only", "HEAD~1") == "top"
    assert workspace.git("branch", "--remotes", "--format=%(refname:short)").split() == [
        "origin/feature/x",
        "origin/main",
    ]
    assert workspace.git("cat-file", "-t", "v1") == "tag"
    assert told(workspace) == "## main...origin/main"


@pytest.mark.parametrize(("depth", "commits"), [("1", "1"), ("2", "2"), ("7", "2"), ("many", "2"), ("-1", "2")])
async def test_the_history_is_as_deep_as_asked(place: Workspaces, depth: str, commits: str) -> None:
    workspace, _ = await place.checkout(fetch_depth=depth)
    assert workspace.git("rev-list", "--count", "HEAD") == commits


async def test_tags_can_be_had_without_history(place: Workspaces) -> None:
    workspace, _ = await place.checkout(fetch_tags="true")
    assert workspace.git("tag") == "v1"
    assert workspace.git("rev-list", "--count", "HEAD") == "1"


async def test_another_branch_a_tag_and_a_commit(place: Workspaces, own: Repository) -> None:
    (own.path / "top").write_text("changed")
    first = own.git("rev-parse", "v1^{commit}")
    branch, made = await place.checkout(ref="feature/x")
    assert told(branch) == "## feature/x...origin/feature/x"
    assert (branch.path / "top").read_text() == "1"
    assert (made.ref, made.commit) == ("feature/x", first)
    for ref, output in (("v1", "v1"), ("refs/tags/v1", "refs/tags/v1"), (first, ""), (first.upper(), "")):
        workspace, made = await place.checkout(ref=ref)
        assert told(workspace) == "## HEAD (no branch)"
        assert (made.ref, made.commit, workspace.git("rev-parse", "HEAD")) == (output, first, first)
        assert (workspace.path / "top").read_text() == "1"
    assert (await place.checkout(ref="v1"))[0].git("describe", "--tags") == "v1"


async def test_the_runs_own_commit_by_its_name_is_detached(place: Workspaces, own: Repository) -> None:
    (own.path / "top").write_text("changed")
    workspace, made = await place.checkout(ref=own.git("rev-parse", "HEAD"))
    assert told(workspace).splitlines() == ["## HEAD (no branch)", " M top"]
    assert made.ref == ""


async def test_a_branch_of_the_origin_that_is_not_here_yet(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    first = own.git("rev-parse", "v1^{commit}")
    own.git("update-ref", "refs/remotes/origin/far", first)
    own.git("update-ref", "refs/remotes/origin/main", first)
    own.git("update-ref", "refs/remotes/origin/feature", first)  # there is a branch feature/x here
    own.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    workspace, _ = await place.checkout(ref="far")
    assert told(workspace) == "## far...origin/far"
    workspace, _ = await place.checkout(fetch_depth="0")
    assert workspace.git("branch", "--remotes", "--format=%(refname:short)").split() == [
        "origin/far",
        "origin/feature/x",
        "origin/main",
    ]
    assert told(workspace) == "## main...origin/main"


@pytest.mark.parametrize(
    ("ref", "kept"),
    [("refs/pull/7/merge", "refs/remotes/pull/7/merge"), ("refs/tags/v2", "refs/tags/v2")],
)
async def test_refs_of_events_are_detached(place: Workspaces, own: Repository, ref: str, kept: str) -> None:
    place.source = dataclasses.replace(place.source, ref=ref)
    for depth in ("1", "0"):
        workspace, made = await place.checkout(fetch_depth=depth)
        assert told(workspace) == "## HEAD (no branch)"
        assert workspace.git("rev-parse", kept) == own.git("rev-parse", "HEAD")
        assert made.ref == ref


@pytest.mark.parametrize("ref", ["", "refs/heads/a..b", "a b"])
async def test_a_ref_that_is_none_is_a_commit(place: Workspaces, ref: str) -> None:
    place.source = dataclasses.replace(place.source, ref=ref)
    workspace, _ = await place.checkout()
    assert told(workspace) == "## HEAD (no branch)"


async def test_what_is_not_there(place: Workspaces) -> None:
    with pytest.raises(CheckoutError, match="A branch or tag with the name 'gone' could not be found") as raised:
        await place.checkout(ref="gone")
    assert str(place.source.path) in raised.value.hint
    with pytest.raises(CheckoutError, match=f"has no commit {'1' * 40}"):
        await place.checkout(ref="1" * 40)
    with pytest.raises(ForgeError, match="not a name git could have"):
        await place.checkout(ref="--upload-pack=touch x")


async def test_a_directory_without_history(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("x")
    place = Workspaces(tmp_path / "made", Source(path=tmp_path / "plain", repository="a/b", ref="", sha=""))
    workspace, made = await place.checkout(fetch_depth="0")
    assert [path.name for path in workspace.path.iterdir()] == ["file"]
    assert made.said[-1] == "The source has no commit: there is no .git in the workspace."


async def test_a_clone_that_is_shallow_itself(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    own.git("clone", "--quiet", "--depth=1", f"file://{tmp_path}/a place/own%2541", str(tmp_path / "shallow"))
    place.source = source_of(Repository(tmp_path / "shallow"))
    for depth in ("1", "0"):
        workspace, _ = await place.checkout(fetch_depth=depth)
        assert told(workspace) == "## main...origin/main"


async def test_a_linked_worktree(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    own.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "feature/x")
    linked = Repository(tmp_path / "linked")
    place.source = source_of(linked, ref="refs/heads/feature/x")
    for depth in ("1", "0"):
        workspace, _ = await place.checkout(fetch_depth=depth)
        assert told(workspace) == "## feature/x...origin/feature/x"
    workspace, _ = await place.checkout(ref="main")
    assert (workspace.path / "top").read_text() == "2"


async def test_nothing_of_the_configuration_gets_in_and_nothing_of_the_repository_runs(
    place: Workspaces, own: Repository, tmp_path: Path
) -> None:
    marker, script = tmp_path / "ran", tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    script.chmod(0o755)
    own.commit({".gitattributes": "* filter=evil\n"})
    for key in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook", "credential.helper", "core.pager"):
        own.git("config", key, str(script))
    own.git("config", "remote.origin.url", "https://user:password@forge.example/octo/hello")
    own.git("config", "filter.evil.smudge", str(script))
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (own.path / ".git" / "hooks").mkdir(exist_ok=True)
        (own.path / ".git" / "hooks" / hook).write_text(script.read_text())
        (own.path / ".git" / "hooks" / hook).chmod(0o755)
    marker.unlink(missing_ok=True)
    place.source = dataclasses.replace(place.source, sha="")
    for inputs in ({"fetch_depth": "0"}, {"ref": "v1"}, {"sparse_checkout": "a"}):
        workspace, _ = await place.checkout(**inputs)
        everything = b"".join(path.read_bytes() for path in (workspace.path / ".git").rglob("*") if path.is_file())
        assert [word for word in (b"password", str(tmp_path).encode(), b"script") if word in everything] == []
        assert not (workspace.path / ".git" / "hooks").exists()
    assert not marker.exists()


# --- sparse ---


async def test_directories_of_a_sparse_checkout(place: Workspaces, own: Repository) -> None:
    (own.path / "a" / "b" / "new").write_text("new")
    (own.path / "c" / "new").write_text("new")
    workspace, _ = await place.checkout(sparse_checkout="\n a/b \n\n")
    files = sorted(str(p.relative_to(workspace.path)) for p in workspace.path.rglob("*") if p.is_file())
    assert [file for file in files if not file.startswith(".git/")] == ["a/b/new", "a/b/y", "a/x", "top"]
    assert told(workspace).splitlines() == ["## main...origin/main", "?? a/b/new"]
    assert workspace.git("sparse-checkout", "list") == "a/b"


async def test_patterns_of_a_sparse_checkout_of_another_repository(place: Workspaces, tmp_path: Path) -> None:
    mirrored(tmp_path, "octo/tools", dict(TREE))
    workspace, _ = await place.checkout(
        repository="octo/tools", sparse_checkout="/*\n!/a/b/\n!top", sparse_checkout_cone_mode="false"
    )
    assert workspace.git("ls-files", "-t").split() == ["S", "a/b/y", "H", "a/x", "H", "c/z", "S", "top"]
    assert not (workspace.path / "top").exists()
    assert told(workspace) == "## main...origin/main"
    workspace.git("sparse-checkout", "disable")
    assert (workspace.path / "top").read_text() == "1"


# --- another repository ---


async def test_the_default_branch_of_another_repository(place: Workspaces, tmp_path: Path) -> None:
    tools = mirrored(tmp_path, "octo/tools", {"tool": "1"})
    tools.git("tag", "v1")
    tools.commit({"tool": "2"})
    tools.git("push", "--quiet", "--mirror", "mirror")
    workspace, made = await place.checkout(repository="octo/tools", path="tools")
    assert workspace.path.name == "tools"
    assert told(workspace) == "## main...origin/main"
    assert (made.ref, made.commit) == ("refs/heads/main", tools.git("rev-parse", "HEAD"))
    assert workspace.git("remote", "get-url", "origin") == "https://github.com/octo/tools"
    workspace, made = await place.checkout(repository="Octo/tools".lower(), ref="v1", fetch_depth="0")
    assert (workspace.path / "tool").read_text() == "1"
    assert workspace.git("describe", "--tags") == "v1"


async def test_a_pull_request_of_another_repository(place: Workspaces, tmp_path: Path) -> None:
    tools = mirrored(tmp_path, "octo/tools", {"tool": "1"})
    tools.git("update-ref", "refs/pull/7/head", tools.commit({"tool": "2"}))
    tools.git("reset", "--quiet", "--hard", "HEAD~1")
    tools.git("push", "--quiet", "--mirror", "mirror")
    for depth in ("1", "0"):
        workspace, made = await place.checkout(repository="octo/tools", ref="refs/pull/7/head", fetch_depth=depth)
        assert (workspace.path / "tool").read_text() == "2"
        assert told(workspace) == "## HEAD (no branch)"
        assert workspace.git("rev-parse", "refs/remotes/pull/7/head") == made.commit
    with pytest.raises(RefNotFoundError, match="'refs/pull/8/head' could not be found"):
        await place.checkout(repository="octo/tools", ref="refs/pull/8/head")


async def test_another_repository_that_is_not_to_be_had(place: Workspaces, tmp_path: Path) -> None:
    mirrored(tmp_path, "octo/tools", {"tool": "1"})
    with pytest.raises(OriginError, match=r"there is no octo/gone\.git in"):
        await place.checkout(repository="octo/gone")
    with pytest.raises(OriginError, match=r"not told where repositories of other\.example"):
        await place.checkout(repository="octo/tools", github_server_url="https://other.example")
    place.settings["actions_allow"] = ("actions/*",)
    with pytest.raises(OriginError, match="octo/tools is not allowed on this node") as raised:
        await place.checkout(repository="octo/tools")
    assert "`actions_allow`" in raised.value.hint
    place.settings = {}
    with pytest.raises(OriginError, match="not told where"):
        await place.checkout(repository="octo/tools")


async def test_a_server_s_clone_gets_the_rest_from_where_it_came_from(
    place: Workspaces, own: Repository, tmp_path: Path
) -> None:
    """One commit deep on this host: history, tags and other refs are fetched with the credential of the build, and other repositories without it."""
    secret = "t0ken"
    make_repository(tmp_path / "a place" / "lib", {"lib": "1"})
    own.git("clone", "--quiet", "--depth=1", f"file://{tmp_path}/a place/own%2541", str(tmp_path / "shallow"))
    async with GitServer(tmp_path / "a place", credential=f"me:{secret}").running() as server:
        (tmp_path / "a place" / "own%41").rename(tmp_path / "a place" / "own")
        address = parse_address(f"{server.url}/own", protocols=frozenset({"http"}))
        remote = dataclasses.replace(address, credential=Credential("me", secret))
        place.source = dataclasses.replace(source_of(Repository(tmp_path / "shallow")), remote=remote)
        place.settings = {}
        await place.checkout()
        assert server.paths == []
        workspace, _ = await place.checkout(fetch_depth="0")
        assert workspace.git("tag") == "v1"
        assert workspace.git("rev-list", "--count", "HEAD") == "2"
        assert workspace.git("remote", "get-url", "origin") == f"{server.url}/own"
        workspace, _ = await place.checkout(ref="feature/x")
        assert (workspace.path / "top").read_text() == "1"
        everything = b"".join(path.read_bytes() for path in workspace.path.rglob("*") if path.is_file())
        assert secret.encode() not in everything
        asked = len(server.authorizations)
        with pytest.raises(ForgeError):
            await place.checkout(repository="octo/lib")
        assert len(server.authorizations) == asked


async def test_the_same_name_at_another_forge_is_another_repository(place: Workspaces, tmp_path: Path) -> None:
    mirrored(tmp_path, "other.example/octo/hello", {"elsewhere": "1"})
    workspace, _ = await place.checkout(github_server_url="https://other.example")
    assert [path.name for path in workspace.path.iterdir() if path.name != ".git"] == ["elsewhere"]
    assert workspace.git("remote", "get-url", "origin") == "https://other.example/octo/hello"
    workspace, _ = await place.checkout(github_server_url="https://github.com/")
    assert (workspace.path / "top").read_text() == "2"


# --- submodules ---


def with_submodule(repository: Repository, url: str, commit: str, path: str = "lib", name: str = "lib") -> str:
    """Commit a submodule that nobody has checked out."""
    (repository.path / ".gitmodules").write_text(f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n')
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "--message", "submodule")
    (repository.path / path).mkdir(parents=True, exist_ok=True)
    return repository.git("rev-parse", "HEAD")


@pytest.mark.parametrize("url", ["../lib.git", "https://github.com/octo/lib", "git@github.com:octo/lib.git"])
async def test_submodules_come_from_the_mirror(place: Workspaces, own: Repository, tmp_path: Path, url: str) -> None:
    lib = mirrored(tmp_path, "octo/lib", {"lib.c": "1"})
    wanted = lib.git("rev-parse", "HEAD")
    lib.commit({"lib.c": "2"})
    lib.git("push", "--quiet", "--mirror", "mirror")
    place.source = dataclasses.replace(place.source, sha=with_submodule(own, url, wanted))
    workspace, made = await place.checkout(submodules="true")
    assert (workspace.path / "lib" / "lib.c").read_text() == "1"
    assert told(workspace) == "## main...origin/main"
    assert workspace.git("submodule", "status").split()[:2] == [wanted, "lib"]
    assert Repository(workspace.path / "lib").git("status", "--porcelain", "--branch") == "## HEAD (no branch)"
    assert f"Submodule path 'lib': checked out '{wanted}'" in made.said
    without, _ = await place.checkout()
    assert list((without.path / "lib").iterdir()) == []
    assert told(without) == "## main...origin/main"


async def test_submodules_within_submodules(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    inner = mirrored(tmp_path, "octo/inner", {"inner.c": "1"})
    lib = mirrored(tmp_path, "octo/lib", {"lib.c": "1"})
    commit = with_submodule(lib, "../inner", inner.git("rev-parse", "HEAD"), "deep/inner", "in/ner")
    lib.git("push", "--quiet", "--mirror", "mirror")
    tools = mirrored(tmp_path, "octo/tools", {"tool": "1"})
    with_submodule(tools, "./../lib", commit)
    tools.git("push", "--quiet", "--mirror", "mirror")
    workspace, _ = await place.checkout(repository="octo/tools", submodules="true")
    assert list((workspace.path / "lib" / "deep" / "inner").iterdir()) == []
    workspace, _ = await place.checkout(repository="octo/tools", submodules="recursive", fetch_depth="0")
    assert (workspace.path / "lib" / "deep" / "inner" / "inner.c").read_text() == "1"
    assert told(workspace) == "## main...origin/main"
    assert len(workspace.git("submodule", "status", "--recursive").splitlines()) == 2
    assert workspace.git("submodule", "foreach", "--recursive", "--quiet", "git status --porcelain") == ""


async def test_submodules_of_a_directory_are_as_they_are_there(
    place: Workspaces, own: Repository, tmp_path: Path
) -> None:
    lib = make_repository(tmp_path / "lib", {"lib.c": "1"})
    own.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(lib.path), "lib")
    own.git("config", "--file", ".gitmodules", "submodule.lib.url", "../lib")
    own.git("commit", "--quiet", "--all", "--message", "submodule")
    (own.path / "lib" / "lib.c").write_text("changed")
    place.source = dataclasses.replace(place.source, sha="")
    workspace, _ = await place.checkout(submodules="recursive")
    assert (workspace.path / "lib" / "lib.c").read_text() == "changed"
    assert told(workspace).splitlines() == ["## main...origin/main", " M lib"]
    assert str(tmp_path) not in (workspace.path / ".git" / "config").read_text()


async def test_history_outside_of_the_source_is_not_a_submodule_s(
    place: Workspaces, own: Repository, tmp_path: Path
) -> None:
    """A `.git` that says where else to look: somebody else's repository does not come in as a submodule."""
    private = make_repository(tmp_path / "private", {"lib.c": "private"})
    place.source = dataclasses.replace(
        place.source, sha=with_submodule(own, "../lib", private.git("rev-parse", "HEAD"))
    )
    (own.path / "lib" / ".git").write_text(f"gitdir: {private.path}/.git\n")
    with pytest.raises(CheckoutError, match=r"there is no octo/lib\.git in"):
        await place.checkout(submodules="true")


@pytest.mark.parametrize(
    "url",
    [
        *("ext::sh -c touch% ran", "file:///etc", "/etc", "--upload-pack=touch ran", "-u./x", "../../../../../x"),
        *("https://evil.example/octo/lib", "https://github.com/octo/../lib", "https://github.com/%2e%2e/lib", "./."),
        *(
            "../../lib/..",
            "https://github.com/lib",
            "ssh://-oProxyCommand=touch/octo/lib",
            "https://github.com/octo/gone",
        ),
    ],
)
async def test_addresses_of_submodules_that_are_refused(
    place: Workspaces, own: Repository, tmp_path: Path, url: str
) -> None:
    lib = mirrored(tmp_path, "octo/lib", {"lib.c": "1"})
    place.source = dataclasses.replace(place.source, sha=with_submodule(own, url, lib.git("rev-parse", "HEAD")))
    with pytest.raises((CheckoutError, ForgeError)):
        await place.checkout(submodules="true")
    assert not list(tmp_path.rglob("ran"))


async def test_a_submodule_that_is_a_link_is_none(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    """The path is a link to somewhere in the source: it is neither read as a submodule there nor written through."""
    lib = mirrored(tmp_path, "octo/lib", {"lib.c": "1"})
    place.source = dataclasses.replace(place.source, sha=with_submodule(own, "../lib", lib.git("rev-parse", "HEAD")))
    (own.path / "lib").rmdir()
    (tmp_path / "outside").mkdir()
    (own.path / "lib").symlink_to(tmp_path / "outside")
    async with place.made(submodules="true") as made:
        assert [piece for piece in made.pieces if piece.root.is_relative_to(own.path / "lib")] == []
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_link_without_an_address_and_one_that_is_not_wanted(place: Workspaces, own: Repository) -> None:
    commit = with_submodule(own, "../lib", "1" * 40)
    (own.path / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = ../lib\n\tupdate = none\n')
    place.source = dataclasses.replace(place.source, sha=own.commit({}))
    workspace, _ = await place.checkout(submodules="true")
    assert list((workspace.path / "lib").iterdir()) == []
    own.git("reset", "--quiet", "--hard", commit)
    own.git("rm", "--quiet", "--force", "--cached", ".gitmodules")
    own.git("commit", "--quiet", "--message", "no address")
    place.source = dataclasses.replace(place.source, sha=own.git("rev-parse", "HEAD"))
    with pytest.raises(CheckoutError, match=r"No url found for submodule path 'lib' in \.gitmodules"):
        await place.checkout(submodules="true")


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", "..", ".g\u200cit"])
@pytest.mark.parametrize("as_submodule", [False, True])
async def test_trees_that_would_write_into_git_itself_are_refused(
    place: Workspaces, own: Repository, tmp_path: Path, name: str, *, as_submodule: bool
) -> None:
    lib = mirrored(tmp_path, "octo/lib", {"lib": "1"})
    inner = lib.tree(("100755", "post-checkout", lib.blob(b"#!/bin/sh\ntouch ran\n")))
    bad = lib.point_main_at(lib.tree(("40000", name, lib.tree(("40000", "hooks", inner)))))
    lib.git("push", "--quiet", "--mirror", "mirror")
    place.source = dataclasses.replace(place.source, sha=with_submodule(own, "../lib", bad))
    with pytest.raises((CheckoutError, ForgeError)):
        await place.checkout(**({"submodules": "true"} if as_submodule else {"repository": "octo/lib"}))
    assert not list(tmp_path.rglob("ran"))


# --- Git LFS ---

LARGE = b"large" * 100_000
OID = hashlib.sha256(LARGE).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(LARGE)}\n"
WITH_LFS: dict[str, str | bytes] = {".gitattributes": "*.bin filter=lfs\n", "a b/large.bin": POINTER, "text": POINTER}


def keep(directory: Path, content: bytes = LARGE) -> None:
    target = directory / "lfs" / "objects" / OID[:2] / OID[2:4] / OID
    target.parent.mkdir(parents=True)
    target.write_bytes(content)


async def test_objects_of_a_mirror_take_the_places_of_pointers(place: Workspaces, tmp_path: Path) -> None:
    mirrored(tmp_path, "octo/tools", WITH_LFS)
    with pytest.raises(ForgeError, match=f"cannot get the LFS object {OID}") as raised:
        await place.checkout(repository="octo/tools", lfs="true")
    assert raised.value.hint == "In a mirror: git lfs fetch --all."
    keep(tmp_path / "mirror" / "octo" / "tools.git")
    workspace, _ = await place.checkout(repository="octo/tools", lfs="true")
    assert (workspace.path / "a b" / "large.bin").read_bytes() == LARGE
    assert (workspace.path / "text").read_text() == POINTER
    assert told(workspace) == "## main...origin/main"
    workspace, _ = await place.checkout(repository="octo/tools")
    assert (workspace.path / "a b" / "large.bin").read_text() == POINTER


async def test_objects_of_the_runs_own_repository(place: Workspaces, own: Repository) -> None:
    place.source = dataclasses.replace(place.source, sha=own.commit(WITH_LFS))
    keep(own.path / ".git")
    workspace, _ = await place.checkout(lfs="true")
    assert (workspace.path / "a b" / "large.bin").read_bytes() == LARGE
    assert told(workspace) == "## main...origin/main"


async def test_objects_that_are_in_their_places_already(place: Workspaces, own: Repository) -> None:
    """Somebody has git-lfs: the files are there, and one of them has been changed since. No object is asked for."""
    more = {"b.bin": POINTER, "c.bin": "small, and no pointer", "d.bin": bytes(2000)}
    place.source = dataclasses.replace(place.source, sha=own.commit({**WITH_LFS, **more}))
    (own.path / "a b" / "large.bin").write_bytes(LARGE)
    (own.path / "b.bin").write_bytes(LARGE[::-1])
    workspace, _ = await place.checkout(lfs="true")
    assert (workspace.path / "a b" / "large.bin").read_bytes() == LARGE
    assert told(workspace).splitlines() == ["## main...origin/main", " M b.bin"]


async def test_objects_outside_of_a_sparse_checkout_are_not_asked_for(place: Workspaces, own: Repository) -> None:
    place.source = dataclasses.replace(place.source, sha=own.commit(WITH_LFS))
    workspace, _ = await place.checkout(lfs="true", sparse_checkout="c")
    assert not (workspace.path / "a b").exists()
    assert told(workspace) == "## main...origin/main"


@pytest.mark.parametrize("content", [LARGE[:-1] + b"x", LARGE + b"x", LARGE[:-1]], ids=["other", "longer", "shorter"])
async def test_objects_that_are_not_what_the_pointer_says(place: Workspaces, tmp_path: Path, content: bytes) -> None:
    mirrored(tmp_path, "octo/tools", WITH_LFS)
    keep(tmp_path / "mirror" / "octo" / "tools.git", content)
    with pytest.raises(ForgeError, match="is another one|is larger than"):
        await place.checkout(repository="octo/tools", lfs="true")


async def test_an_object_that_is_a_link_is_not_read(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    place.source = dataclasses.replace(place.source, sha=own.commit(WITH_LFS))
    (tmp_path / "secret").write_bytes(LARGE)
    target = own.path / ".git" / "lfs" / "objects" / OID[:2] / OID[2:4] / OID
    target.parent.mkdir(parents=True)
    target.symlink_to(tmp_path / "secret")
    with pytest.raises(ForgeError, match="cannot get the LFS object"):
        await place.checkout(lfs="true")


async def test_one_object_under_many_names_is_within_the_limit(place: Workspaces, tmp_path: Path) -> None:
    large = b"y" * (1 << 20)
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(large).hexdigest()}\nsize {1 << 20}\n"
    )
    names = {f"{number}.bin": pointer for number in range(50)}
    make_repository(tmp_path / "served" / "octo" / "tools", {".gitattributes": "*.bin filter=lfs\n", **names})
    server = GitServer(tmp_path / "served", objects={hashlib.sha256(large).hexdigest(): large})
    async with server.running():
        place.settings, place.limits = {"actions_url": server.url}, CloneLimits(size_mib=20)
        with pytest.raises(CloneLimitError, match="objects of Git LFS are larger than 20 MiB"):
            await place.checkout(repository="octo/tools", lfs="true")
        assert not [path for path in server.paths if "lfs" in path]


async def test_objects_of_a_server_with_its_credential(place: Workspaces, tmp_path: Path) -> None:
    make_repository(tmp_path / "served" / "octo" / "tools", WITH_LFS)
    server = GitServer(tmp_path / "served", credential="me:t0ken", objects={OID: LARGE})
    async with server.running():
        place.settings = {"actions_url": server.url.replace("//", "//me:t0ken@")}
        workspace, _ = await place.checkout(repository="octo/tools", lfs="true")
        assert (workspace.path / "a b" / "large.bin").read_bytes() == LARGE
        server.objects = {OID: b"x" * len(LARGE)}
        with pytest.raises(ForgeError, match="that was sent is another one"):
            await place.checkout(repository="octo/tools", lfs="true")
        server.objects = {}
        with pytest.raises(ForgeError, match=f"the server does not have {OID}"):
            await place.checkout(repository="octo/tools", lfs="true")


async def test_the_credential_does_not_go_where_the_server_sends_for_an_object(
    place: Workspaces, tmp_path: Path
) -> None:
    make_repository(tmp_path / "served" / "octo" / "tools", WITH_LFS)
    server = GitServer(tmp_path / "served", credential="me:t0ken", objects={OID: LARGE})
    thief = GitServer(tmp_path / "served", objects={OID: LARGE})
    async with server.running(), thief.running():
        server.elsewhere = thief.url
        place.settings = {"actions_url": server.url.replace("//", "//me:t0ken@")}
        with pytest.raises(ForgeError, match="neither its own nor reached over https") as raised:
            await place.checkout(repository="octo/tools", lfs="true")
        assert thief.paths == []
        server.elsewhere = "https://127.0.0.1:1/secret-in-address"
        with pytest.raises(ForgeError, match="the connection failed") as raised:
            await place.checkout(repository="octo/tools", lfs="true")
        assert "secret-in-address" not in str(raised.value)


# --- limits ---


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({"large": os.urandom(3 << 20)}, CloneLimits(size_mib=2)),
        ({f"many/{number}": "" for number in range(300)}, CloneLimits(entries=200)),
    ],
)
async def test_a_repository_beyond_the_limits_is_ended(
    place: Workspaces, tmp_path: Path, files: dict[str, str | bytes], limits: CloneLimits
) -> None:
    mirrored(tmp_path, "octo/tools", files)
    place.limits = limits
    with pytest.raises(CloneLimitError):
        await place.checkout(repository="octo/tools")


async def test_submodules_beyond_the_limits_are_refused(place: Workspaces, own: Repository, tmp_path: Path) -> None:
    lib = mirrored(tmp_path, "octo/lib", {"lib": "1"})
    commit = lib.git("rev-parse", "HEAD")
    text = "".join(f'[submodule "m{n}"]\n\tpath = m{n}\n\turl = ../lib\n' for n in range(101))
    entries = "".join(f"160000 {commit}\tm{n}\n" for n in range(101))
    (own.path / ".gitmodules").write_text(text)
    own.git("add", ".gitmodules")
    own.git("update-index", "--index-info", data=entries.encode())
    own.git("commit", "--quiet", "--message", "many")
    place.source = dataclasses.replace(place.source, sha=own.git("rev-parse", "HEAD"))
    with pytest.raises(CheckoutError, match="they are more than 100"):
        await place.checkout(submodules="true")


async def test_a_repository_that_is_its_own_submodule_ends(
    place: Workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Level after level at a commit before."""
    monkeypatch.setattr("firebrick.node.checkout.made._MOST_LEVELS", 2)
    lib = mirrored(tmp_path, "octo/lib", {"lib": "1"})
    commit = lib.git("rev-parse", "HEAD")
    for _ in range(3):
        commit = with_submodule(lib, "../lib", commit, "deeper", "deeper")
    lib.git("push", "--quiet", "--mirror", "mirror")
    with pytest.raises(CheckoutError, match="more than 2 levels deep"):
        await place.checkout(repository="octo/lib", submodules="recursive")
    workspace, _ = await place.checkout(repository="octo/lib", submodules="true")
    assert (workspace.path / "deeper" / "lib").read_text() == "1"


# --- a step of a run ---

STEP = "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - uses: actions/checkout@v4\n        timeout-minutes: 0.02\n        with: {with}\n"


async def test_a_step_that_is_out_of_time_leaves_nothing(tmp_path: Path) -> None:
    async with GitServer(tmp_path, silent=True).running() as server:
        settings = NodeSettings(actions_url=server.url)
        bed = Bed(tmp_path, DoubleLender(), settings, DoubleActions(tmp_path / "actions"))
        told = await bed.run(STEP.replace("{with}", "{repository: octo/tools}"))
    assert told.steps() == ["failure"]
    assert "has timed out after 0.02 minutes" in "".join(told.lines())
    assert server.paths


async def test_a_cancelled_run_gives_a_checkout_up(tmp_path: Path) -> None:
    asked = asyncio.Event()
    async with GitServer(tmp_path, silent=True, on_request=asked.set).running() as server:
        bed = Bed(tmp_path, DoubleLender(), NodeSettings(actions_url=server.url), DoubleActions(tmp_path / "actions"))
        text = STEP.replace("{with}", "{repository: octo/tools}").replace("0.02", "10")
        async with bed.live(text) as run:
            await asyncio.wait_for(asked.wait(), 10)
            run.cancel(CancelCause.USER)
            told = Told([event async for event in run.events()], await run.result())
    assert (told.steps(), told.result.conclusion.value) == (["cancelled"], "cancelled")
    assert told.lines()[-1] == "##[error]The operation was canceled."


async def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    bed = Bed(tmp_path, DoubleLender(), NodeSettings(), DoubleActions(tmp_path / "actions"))
    inputs = "{token: secret-token, ssh-key: k, persist-credentials: true, filter: 'blob:none', fetch-depth: all, show-progress: true, nonsense: 1}"
    told = await bed.run(STEP.replace("{with}", inputs))
    assert told.steps() == ["success"]
    lines = told.lines()
    assert [line for line in lines if "secret-token" in line] == []
    assert [line for line in lines if line.startswith(("Without effect", "`fetch-depth`"))] == [
        "`fetch-depth` is 'all', which is no number from 0: the whole history is fetched.",
        "Without effect: token, ssh-key, persist-credentials (the host fetches with what its settings say, and no credential gets into the machine).",
        "Without effect: filter (every object of what is fetched is there).",
        "Without effect: show-progress (nothing is shown while it is fetched).",
    ]
    [annotation] = told.annotations()
    assert annotation.message.startswith("Unexpected input(s) 'nonsense', valid inputs are ['repository', 'ref', ")
