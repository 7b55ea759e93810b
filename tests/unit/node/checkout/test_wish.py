"""The inputs of `actions/checkout`, read as the action reads them."""

from __future__ import annotations

import pytest

from firebrick.node.action.native import NATIVE
from firebrick.node.checkout.wish import Sparse, Submodules, Wish, read_wish, remarks
from firebrick.node.errors import CheckoutError
from tests.place import ROOT


def wish(**inputs: str) -> Wish:
    named = {name.replace("_", "-"): value for name, value in inputs.items()}
    return read_wish(named, workspace="/w", own="octo/hello")


def test_without_inputs() -> None:
    assert wish() == Wish(path="/w") == wish(repository="OCTO/Hello", path=".", fetch_depth="1", clean="TRUE", ref=" ")


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        *(("", 1), (" ", 1), ("1", 1), (" 3 ", 3), ("0", 0), ("2.9", 2), ("1e2", 100), ("-1", 0), ("x", 0)),
        *(("NaN", 0), ("Infinity", 0), ("9" * 400, 0), ("99999999999", 10**9)),
    ],
)
def test_depths(text: str, depth: int) -> None:
    assert wish(fetch_depth=text).depth == depth


@pytest.mark.parametrize(
    ("text", "submodules"),
    [
        *(("", Submodules.NONE), ("false", Submodules.NONE), ("yes", Submodules.NONE), ("true", Submodules.DIRECT)),
        *(("TRUE", Submodules.DIRECT), ("Recursive", Submodules.NESTED)),
    ],
)
def test_submodules(text: str, submodules: Submodules) -> None:
    assert wish(submodules=text).submodules is submodules


def test_flags_are_true_in_whatever_case_and_else_not() -> None:
    assert (wish(lfs="True").lfs, wish(lfs="yes").lfs, wish(lfs="").lfs) == (True, False, False)
    assert (wish(clean="").clean, wish(clean="false").clean, wish(clean="1").clean) == (True, False, False)


def test_patterns_of_a_sparse_checkout() -> None:
    assert wish(sparse_checkout="\n  a/b \n\nc\n").sparse == Sparse(("a/b", "c"), cone=True)
    assert wish(sparse_checkout="*", sparse_checkout_cone_mode="false").sparse == Sparse(("*",), cone=False)
    assert wish(sparse_checkout=" \n ").sparse is None
    for text in ("x" * 1001, "x\n" * 501, "a\0b"):
        with pytest.raises(CheckoutError, match="`sparse-checkout` has more than"):
            wish(sparse_checkout=text)


@pytest.mark.parametrize("commit", ["a" * 40, "B" * 40, "1" * 64])
def test_whole_names_of_commits(commit: str) -> None:
    assert wish(ref=commit).commit == commit.lower()


@pytest.mark.parametrize("ref", ["a" * 39, "main", "refs/heads/" + "a" * 40, "g" * 40])
def test_other_refs_are_no_commits(ref: str) -> None:
    assert wish(ref=ref).commit == ""


@pytest.mark.parametrize(
    ("path", "target"), [("", "/w"), ("a/../b", "/w/b"), ("/w/x", "/w/x"), ("./a//b/", "/w/a/b"), ("/w", "/w")]
)
def test_paths_in_the_workspace(path: str, target: str) -> None:
    assert wish(path=path).path == target


@pytest.mark.parametrize(("path", "target"), [("..", "/"), ("/wx", "/wx"), ("a/../../b", "/b"), ("/etc", "/etc")])
def test_paths_out_of_the_workspace(path: str, target: str) -> None:
    with pytest.raises(CheckoutError) as raised:
        wish(path=path)
    assert str(raised.value) == f"Repository path '{target}' is not under '/w'"


@pytest.mark.parametrize(
    "name", ["x", "a/b/c", "a/", "/b", "a/..", "./b", "a b/c", "a\n/b", "-a/../b", "a/" + "b" * 101]
)
def test_names_that_are_no_repositories(name: str) -> None:
    with pytest.raises(CheckoutError, match=r"Expected format \{owner\}/\{repo\}\."):
        wish(repository=name)


def test_forges() -> None:
    assert wish(github_server_url="HTTPS://Forge.Example:8443/").server == "https://forge.example:8443"
    for url in (
        "file:///etc",
        "ext::sh",
        "https://a b",
        "https://user@host",
        "https://host/path",
        "ssh://host",
        "x" * 400,
    ):
        with pytest.raises(CheckoutError, match="`github-server-url` is"):
            wish(github_server_url=url)


def test_every_input_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "workflow.md").read_text()
    table = page.partition("\n## Checkout\n")[2].partition("\n## ")[0]
    inputs = NATIVE["actions/checkout"].inputs
    assert len(inputs) == 21
    assert [name for name in inputs if f"`{name}`" not in table] == []


def test_what_does_nothing_is_said_and_what_is_empty_is_not_given() -> None:
    assert remarks({"token": "", "ref": "main", "fetch-depth": "0"}) == []
    [said] = remarks({"token": "secret", "ssh-strict": "true"})
    assert said.startswith("Without effect: token, ssh-strict (")
    assert "secret" not in said
    assert remarks({"fetch-depth": "deep"})[0].startswith("`fetch-depth` is 'deep'")
