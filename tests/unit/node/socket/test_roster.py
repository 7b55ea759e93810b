"""Forks on request: whatever becomes of them, who asked is told, and nothing is left."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from firebrick.guest.errors import ChannelError
from firebrick.node.errors import NodeError
from firebrick.node.socket.roster import Roster


class Source:
    """A machine whose forks fail as told, or take for ever."""

    def __init__(self, error=None):
        self.id = "source"
        self.error = error
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    @asynccontextmanager
    async def fork(self):
        self.begun.set()
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
            yield SimpleNamespace(id="copy")
        finally:
            self.ended.set()


@pytest.mark.parametrize("error", [ChannelError("the agent is gone"), ValueError("a mistake"), OSError("no room")])
async def test_every_failure_is_told(error):
    roster = Roster()
    with roster.registered(Source(error), "base", "a test"), pytest.raises(type(error), match=str(error)):
        await asyncio.wait_for(roster.fork("source"), 2)


async def test_the_end_of_the_roster_is_told():
    roster, source = Roster(), Source()
    with roster.registered(source, "base", "a test"):
        asked = asyncio.create_task(roster.fork("source"))
        await source.begun.wait()
        await roster.close()
        with pytest.raises(NodeError, match="the node ends"):
            await asyncio.wait_for(asked, 2)
    assert source.ended.is_set()


async def test_a_fork_nobody_waits_for_is_not_made():
    roster, source = Roster(), Source()
    with roster.registered(source, "base", "a test"):
        asked = asyncio.create_task(roster.fork("source"))
        await source.begun.wait()
        asked.cancel()
        await asyncio.wait([asked])
        await asyncio.wait_for(source.ended.wait(), 2)
