"""Random numbers of a machine that is none: what the agent does as an ordinary process must change nothing around it."""

from __future__ import annotations

import os

import pytest

from firebrick.guest.errors import UnsupportedError
from tests.agent.conftest import Guest


async def test_only_a_machine_can_be_seeded(guest: Guest) -> None:
    before = os.stat("/dev/urandom").st_rdev
    async with guest.connect() as agent:
        with pytest.raises(UnsupportedError):
            await agent.seed(b"seed")
        done = await agent.run(["sh", "-c", "echo on"])
    assert done.stdout == b"on\n"
    assert os.stat("/dev/urandom").st_rdev == before
