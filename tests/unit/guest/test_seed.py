"""A seed on its way to the guest."""

from __future__ import annotations

import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import GuestDouble
from firebrick.guest.errors import UnsupportedError


async def test_an_agent_that_cannot_is_not_asked() -> None:
    double = GuestDouble()
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        with pytest.raises(UnsupportedError, match="does not know how"):
            await agent.seed(b"seed")
    await double.close()
    assert double.seed is None
    assert double.violations == []


async def test_it_comes_with_its_modules() -> None:
    double = GuestDouble()
    double.features = (protocol.SEED,)
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        await agent.seed(b"seed", ["/run/fuse.ko", b"/run/cuse.ko"])
    await double.close()
    assert double.seed == message.Seed(seed=b"seed", modules=(b"/run/fuse.ko", b"/run/cuse.ko"))
    assert double.violations == []
