"""Where repositories come from, and what addresses in `.gitmodules` can and cannot mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firebrick.forge.address import parse_address
from firebrick.node.checkout.origin import Origin, Origins, resolved
from firebrick.node.errors import OriginError
from firebrick.node.order import Source
from firebrick.node.settings import NodeSettings

HUB = "https://github.com"
BASE = f"{HUB}/octo/hello"


def origins(tmp_path: Path, remote: str = "", **settings: Any) -> Origins:
    address = parse_address(remote, protocols=frozenset({"https", "ssh", "file"})) if remote else None
    source = Source(path=tmp_path, repository="octo/hello", ref="", sha="", remote=address)
    return Origins(source, NodeSettings(**settings), HUB)


def mirror(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / "mirror" / f"{name}.git").mkdir(parents=True)
    return str(tmp_path / "mirror")


def parent(tmp_path: Path) -> Origin:
    return origins(tmp_path).directory()


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("../lib.git", f"{HUB}/octo/lib.git"),
        ("./../lib", f"{HUB}/octo/lib"),
        ("../../other/lib", f"{HUB}/other/lib"),
        ("./sub", f"{BASE}/sub"),
        (".././../a/b", f"{HUB}/a/b"),
        ("https://x.example/a/b", "https://x.example/a/b"),
        ("..lib", "..lib"),
    ],
)
def test_relative_addresses(url: str, whole: str) -> None:
    assert resolved(url, BASE) == whole


@pytest.mark.parametrize("url", ["../../../x", "../" * 600 + "x", "../", "./", "../" * 2000])
def test_relative_addresses_that_lead_out(url: str) -> None:
    with pytest.raises(OriginError):
        resolved(url, BASE)


def test_a_submodule_is_of_its_host_and_of_no_other(tmp_path: Path) -> None:
    folder = mirror(
        tmp_path, "octo/lib", "gitlab.example/octo/lib", "gitlab.example/group/sub/lib", "other.example/x/y"
    )
    known = origins(tmp_path, actions=folder)
    for url, below in {
        "../lib": "octo/lib",
        "https://github.com/octo/lib.git": "octo/lib",
        "https://gitlab.example/octo/lib": "gitlab.example/octo/lib",
        "git@gitlab.example:group/sub/lib.git": "gitlab.example/group/sub/lib",
        "ssh://git@GITLAB.example:22/octo/lib": "gitlab.example/octo/lib",
    }.items():
        assert known.submodule(parent(tmp_path), url, "").address.path == f"{folder}/{below}.git"
    for url in ("https://evil.example/octo/lib", "https://github.com/x/y", "https://../octo/lib"):
        with pytest.raises(OriginError):
            known.submodule(parent(tmp_path), url, "")


def test_a_forge_is_asked_for_its_own_and_for_what_is_named_alone(tmp_path: Path) -> None:
    known = origins(tmp_path, actions_url="https://me:token@forge.example/git")
    found = known.submodule(parent(tmp_path), "https://forge.example/octo/lib", "")
    assert found.address.url == "https://forge.example/git/octo/lib"
    assert found.address.credential is not None
    assert known.submodule(parent(tmp_path), "../lib", "").address.url == "https://forge.example/git/octo/lib"
    assert known.named("octo/tools", "", "").address.url == "https://forge.example/git/octo/tools"
    assert known.named("octo/tools", "", "https://forge.example").url == "https://forge.example/octo/tools"
    with pytest.raises(OriginError, match=r"not told where repositories of gitlab\.example"):
        known.named("octo/tools", "", "https://gitlab.example")


def test_a_neighbour_of_a_server_s_repository_is_fetched_without_its_credential(tmp_path: Path) -> None:
    known = origins(tmp_path, "https://me:token@forge.example:8443/octo/hello.git")
    assert known.own().address.credential is not None
    for found in (
        known.named("octo/tools", "", ""),
        known.submodule(known.own(), "../tools.git", ""),
        known.submodule(known.own(), "git@forge.example:octo/tools.git", ""),
    ):
        assert (found.address.url, found.address.credential) == ("https://forge.example:8443/octo/tools", None)


@pytest.mark.parametrize("remote", ["file:///srv/octo/hello.git", "ssh://git@forge.example/octo/hello.git"])
def test_a_neighbour_is_never_a_directory_nor_had_with_this_host_s_key(tmp_path: Path, remote: str) -> None:
    known = origins(tmp_path, remote)
    with pytest.raises(OriginError):
        known.named("octo/tools", "", "")
    with pytest.raises(OriginError):
        known.submodule(known.own(), "../tools.git", "")


def test_what_is_not_allowed_is_not_looked_for(tmp_path: Path) -> None:
    folder = mirror(tmp_path, "octo/lib")
    known = origins(tmp_path, actions=folder, actions_allow=("actions/*", "octo/tools@v1"))
    for ask in (
        lambda: known.named("octo/lib", "main", ""),
        lambda: known.named("octo/tools", "v2", ""),
        lambda: known.submodule(parent(tmp_path), "../lib", "a" * 40),
    ):
        with pytest.raises(OriginError, match="is not allowed on this node") as raised:
            ask()
        assert "octo/tools@v1" in raised.value.hint


def test_a_directory_whose_name_git_would_misread(tmp_path: Path) -> None:
    source = Source(path=tmp_path / "a b%41", repository="octo/hello", ref="", sha="")
    found = Origins(source, NodeSettings(), HUB).directory()
    assert found.address.url == f"file://{tmp_path}/a%20b%2541"
    assert found.url == BASE
