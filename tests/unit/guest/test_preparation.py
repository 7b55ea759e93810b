"""What is done before a command, where it cannot come along with it."""

from __future__ import annotations

import pytest

from firebrick.guest import protocol
from firebrick.guest.client import Agent, Identity, Move, Put
from firebrick.guest.double import GuestDouble
from firebrick.guest.errors import MessageTooLargeError, PreparationError

BEFORE = (Put(path=b"/place/made", data=b"by hand", mode=0o600), Move(source=b"/old", target=b"/new", overwrite=False))


async def test_an_agent_of_an_earlier_release_is_asked_one_thing_after_the_other() -> None:
    double = GuestDouble()
    double.features = (protocol.LISTEN,)
    double.disk.mkdir(b"/old", 0o755, parents=True)
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        done = await agent.run(["cat", "/place/made"], before=BEFORE, check=True)
        assert done.stdout == b"by hand"
        assert (await agent.files.stat("/place/made")).mode == 0o600
        assert await agent.files.exists("/new")
        with pytest.raises(PreparationError, match="/old"):
            await agent.run(["cat", "/place/made"], before=BEFORE)
        await agent.ping()
    await double.close()
    assert double.violations == []


async def test_what_no_frame_holds_goes_before() -> None:
    double = GuestDouble()
    large = bytes(range(256)) * 1000
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        done = await agent.run(["cat", "/made"], before=[Put(path=b"/made", data=large)], check=True)
        assert done.stdout == large
        with pytest.raises(MessageTooLargeError):
            await agent.run(["true", "x" * 70_000], before=[Put(path=b"/made", data=b"")])
    await double.close()
    assert double.violations == []
