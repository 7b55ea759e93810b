"""Looking for files in a guest that answers whatever it likes."""

from __future__ import annotations

import pytest

from firebrick.guest.client import Entry
from firebrick.node import glob
from firebrick.node.errors import StepError
from firebrick.node.glob import find_files, parse_searches


class Bottomless:
    """Every directory has others in it."""

    def __init__(self) -> None:
        self.listed = 0

    async def stat(self, path: str) -> Entry:
        return entry(path, "directory")

    async def list(self, path: str) -> list[Entry]:
        self.listed += 1
        assert self.listed < 1000, "there is no end to it"
        return [entry(f"d{number}", "directory") for number in range(50)]


def entry(name: str, kind: str) -> Entry:
    return Entry(name=name.encode(), kind=kind, size=0, mode=0o755, uid=0, gid=0, mtime_ns=0, target=None, nlink=1)


@pytest.mark.parametrize("pattern", ["**", "**/f"])
async def test_directories_are_counted_though_nothing_matches(monkeypatch: pytest.MonkeyPatch, pattern: str):
    monkeypatch.setattr(glob, "ENTRY_LIMIT", 500)
    files = Bottomless()
    with pytest.raises(StepError, match="more than 500 entries"):
        await find_files(files, parse_searches(pattern, "/w"))
    assert files.listed <= 11


async def test_hidden_files_are_counted_though_they_are_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(glob, "ENTRY_LIMIT", 500)
    files = Bottomless()
    files.list = lambda path: listing([entry(f".{number}", "file") for number in range(501)])
    with pytest.raises(StepError, match="more than 500 entries"):
        await find_files(files, parse_searches("**", "/w"), hidden=False)


async def listing(entries: list[Entry]) -> list[Entry]:
    return entries


def test_patterns_are_so_many_and_so_long():
    assert len(parse_searches(["a*"] * glob.MOST_PATTERNS, "/w")) == glob.MOST_PATTERNS
    for lines in (["a*"] * (glob.MOST_PATTERNS + 1), ["[" * 5000]):
        with pytest.raises(StepError, match="at once"):
            parse_searches(lines, "/w")


def test_what_lies_below_another_is_looked_through_once():
    assert glob._bases(["/a-b", "/a/b/c", "/a", "/a", "/a b/c", "/b"]) == ["/a", "/a b/c", "/a-b", "/b"]
    assert glob._bases(["/x", "/", "/x/y"]) == ["/"]
