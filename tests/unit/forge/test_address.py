"""Addresses of repositories: what is taken apart how, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.forge.address import Address, Credential, check_branch, check_commit, parse_address
from firebrick.forge.errors import AddressError, RefError

ALL = frozenset({"https", "http", "ssh", "git", "file"})


@pytest.mark.parametrize(
    ("text", "url", "host", "repository"),
    [
        ("https://example.org/owner/name.git", "https://example.org/owner/name.git", "example.org", "owner/name"),
        ("https://example.org:8443/a/b/c/", "https://example.org:8443/a/b/c/", "example.org", "b/c"),
        ("ssh://git@example.org:2222/o/n", "ssh://git@example.org:2222/o/n", "example.org", "o/n"),
        ("git@example.org:o/n.git", "ssh://git@example.org/o/n.git", "example.org", "o/n"),
        ("https://[::1]:8080/o/n", "https://[::1]:8080/o/n", "[::1]", "o/n"),
        ("file:///srv/git/name.git", "file:///srv/git/name.git", "", "git/name"),
        ("/srv/git/name", "file:///srv/git/name", "", "git/name"),
        ("http://127.0.0.1/~me/x", "http://127.0.0.1/~me/x", "127.0.0.1", "~me/x"),
    ],
)
def test_what_an_address_says(text: str, url: str, host: str, repository: str) -> None:
    address = parse_address(text, protocols=ALL)
    assert (address.url, address.host, address.repository, address.credential) == (url, host, repository, None)


@pytest.mark.parametrize(
    ("text", "credential"),
    [
        ("https://me:s3cr%2Ft@example.org/o/n", Credential("me", "s3cr/t")),
        ("https://token@example.org/o/n", Credential("token", "")),
        ("https://:pass@example.org/o/n", Credential("", "pass")),
    ],
)
def test_a_credential_is_taken_out(text: str, credential: Credential) -> None:
    address = parse_address(text)
    assert address.url == "https://example.org/o/n"
    assert address.credential == credential
    assert "s3cr" not in repr(address)
    assert "token" not in repr(address)
    assert "pass" not in repr(address).replace("credential", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/o/n",
        "ext::sh -c id",
        "ext::sh",
        "fd::3/x",
        "https://",
        "https:///o/n",
        "https://example.org",
        "https://example.org/",
        "https://-oProxyCommand=id/o/n",
        "ssh://-oProxyCommand=id/o/n",
        "ssh://-l@example.org/o/n",
        "-x@example.org:o/n",
        "-upload-pack=id",
        "ssh://me:pass@example.org/o/n",
        "https://example.org/o/n?x=1",
        "https://example.org/o/n#main",
        "https://example.org/../etc",
        "https://example.org/%2e%2e/etc",
        "https://example.org:99999/o/n",
        "https://example.org:x/o/n",
        "https://exa mple.org/o/n",
        "https://example.org/o/n\nHost: x",
        "https://example.org/o\\n",
        "https://%65xample.org/o/n",
        "https://me%0a:x@example.org/o/n",
        "javascript:alert(1)",
        "file://relative/path",
        "file:///srv/../etc",
        "HTTPS://example.org/o/n",
        "https://[::1/o/n",
        "https://example.org/" + "x" * 2048,
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text, protocols=ALL)


@pytest.mark.parametrize("text", ["http://example.org/o/n", "git://example.org/o/n", "file:///srv/x", "/srv/x"])
def test_only_safe_protocols_unless_told_otherwise(text: str) -> None:
    with pytest.raises(AddressError, match="https, ssh"):
        parse_address(text)


def test_a_refusal_does_not_repeat_the_secret() -> None:
    with pytest.raises(AddressError) as caught:
        parse_address("gopher://me:s3cret@example.org/o/n")
    assert "s3cret" not in str(caught.value) + caught.value.hint


@given(st.text(max_size=80))
def test_anything_else_is_refused_or_free_of_surprises(text: str) -> None:
    try:
        address = parse_address(text, protocols=ALL)
    except AddressError:
        return
    assert address.scheme in ALL
    assert address.url.startswith(f"{address.scheme}://")
    assert not any(c.isspace() or ord(c) < 33 for c in address.url)
    assert not address.host.startswith("-")


@pytest.mark.parametrize("name", ["main", "feature/a-b_c", "v1.2.3", "ümlaut", "a@b", "x" * 255, "release/2026.11"])
def test_branches_git_can_have(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-x", "--upload-pack=id", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", "a.lock", "a.lock/b", ".a", "a/.b", "a.", "@", "a@{1}", "a\n", "x" * 256, "\x7f"],
)  # fmt: skip
def test_branches_git_cannot_have(name: str) -> None:
    with pytest.raises(RefError):
        check_branch(name)


@pytest.mark.parametrize("name", ["a" * 7, "0123456789abcdef" * 2 + "01234567", "f" * 64])
def test_commits(name: str) -> None:
    assert check_commit(name) == name


@pytest.mark.parametrize(
    "name", ["", "abc", "g" * 40, "A" * 40, "-" + "a" * 10, "HEAD", "a" * 65, "main^0", "a" * 40 + "\n"]
)
def test_no_commits(name: str) -> None:
    with pytest.raises(RefError):
        check_commit(name)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.org:1/o/n", "https://example.org:1"),
        ("https://u:p@gitea/gitea/gitea", "https://gitea"),
        ("https://u:p@gitlab.example.org/gitlab", "https://gitlab.example.org"),
        ("https://u:p@host/h", "https://host"),
        ("https://u:p@host/h/", "https://host"),
        ("https://[::1]:8080/1", "https://[::1]:8080"),
        ("ssh://git@git/git", "ssh://git@git"),
        ("file:///srv/srv", "file://"),
    ],
)
def test_the_origin_is_what_a_credential_belongs_to(text: str, origin: str) -> None:
    assert parse_address(text, protocols=ALL).origin == origin


def test_the_origin_of_an_address_made_by_hand() -> None:
    assert Address("https://h/p", "https", "h", "/p").origin == "https://h"
