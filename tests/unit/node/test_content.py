"""Files of a guest that are read whole, where the guest puts something else in their place."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from firebrick.node import content
from firebrick.node.content import find_content
from firebrick.node.errors import StepError


class _Files:
    """One file that never gives anything; `asked` says whether it was opened."""

    def __init__(self, kind: str) -> None:
        self.asked = False
        self._kind = kind

    async def stat(self, path: str) -> SimpleNamespace:
        return SimpleNamespace(kind=self._kind)

    async def read(self, path: str, *, limit: int) -> bytes:
        self.asked = True
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("kind", ["fifo", "directory", "character"])
async def test_what_is_no_regular_file_is_not_opened(kind):
    files = _Files(kind)
    assert await find_content(files, "/etc/hosts", 10) is None
    assert not files.asked


async def test_a_file_that_gives_nothing_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(content, "_PATIENCE_S", 0.01)
    with pytest.raises(StepError, match="cannot read /etc/hosts: it gave nothing for 0.01 s"):
        await find_content(_Files("file"), "/etc/hosts", 10)
