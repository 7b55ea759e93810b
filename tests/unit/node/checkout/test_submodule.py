"""`.gitmodules` as git lists it, honest and not; and the configuration that is written of it."""

from __future__ import annotations

import pytest

from firebrick.node.checkout.config import config_text
from firebrick.node.checkout.made import Place
from firebrick.node.checkout.submodule import Submodule, submodules_of
from firebrick.node.errors import CheckoutError

COMMIT = "a" * 40


def module(name: str, path: str, *more: str) -> list[str]:
    return [f"submodule.{name}.path\n{path}", f"submodule.{name}.url\n../x", *more]


def test_they_are_found_by_their_paths() -> None:
    settings = [
        *module("b.c d", "z"),
        *module("a", "x/y/"),
        "core.pager\ntouch x",
        "submodule.a.update\n!touch x",
        "odd",
    ]
    assert submodules_of({"z": COMMIT, "x/y": COMMIT}, settings) == [
        Submodule("a", "x/y", "../x", COMMIT),
        Submodule("b.c d", "z", "../x", COMMIT),
    ]


def test_one_that_is_not_wanted() -> None:
    assert submodules_of({"a": COMMIT}, module("a", "a", "submodule.a.update\nnone")) == []


@pytest.mark.parametrize(
    "settings", [[], module("a", "b"), ["submodule.a.path\na"], ["submodule.a.path\na", "submodule.a.url\n"]]
)
def test_one_without_an_address(settings: list[str]) -> None:
    with pytest.raises(CheckoutError, match=r"No url found for submodule path 'a' in \.gitmodules"):
        submodules_of({"a": COMMIT}, settings)


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/../b", "/a", "a//b", "-x", "a\\b", ".git", "a/.GIT/b", "x" * 1001, "a\tb", "."]
)
def test_names_and_paths_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(CheckoutError, match="the name .* is none that git would take"):
        submodules_of({"fine": COMMIT}, module(name, "fine"))
    path = name.rstrip("/")
    with pytest.raises(CheckoutError, match="the path .* is none that git would take"):
        submodules_of({path: COMMIT}, module("fine", path))


def test_one_within_the_git_directory_of_another() -> None:
    settings = [*module("a", "a"), *module("a/hooks", "b")]
    with pytest.raises(CheckoutError, match=r"would be within the \.git of the submodule 'a'"):
        submodules_of({"a": COMMIT, "b": COMMIT}, settings)


def test_where_they_are_in_the_machine() -> None:
    place = Place("/w", "/w/.git").below(Submodule("n/m", "x/y", "u", COMMIT))
    assert place == Place("/w/x/y", "/w/.git/modules/n/m")
    assert place.link() == "gitdir: ../../.git/modules/n/m\n"
    assert place.settings() == (("core", "", "worktree", "../../../../x/y"),)


def test_no_value_gets_out_of_its_line() -> None:
    text = config_text(
        [
            ("core", "", "bare", "false"),
            ("submodule", 'a"]\\', "url", "https://x/#;y"),
            ("submodule", 'a"]\\', "active", "true"),
            ("branch", "b", "merge", 'q"\\ '),
        ]
    )
    assert text == (
        "[core]\n\tbare = false\n"
        '[submodule "a\\"]\\\\"]\n\turl = "https://x/#;y"\n\tactive = true\n'
        '[branch "b"]\n\tmerge = "q\\"\\\\ "\n'
    )
    for value in ("a\nb", "a\x00b", "a\x7fb"):
        with pytest.raises(CheckoutError, match="control characters"):
            config_text([("core", "", "x", value)])
