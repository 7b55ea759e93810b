from collections.abc import AsyncIterator, Iterator

import pytest

from firebrick.machine.network.pool import SlotPool
from tests.network import world as worlds
from tests.network.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with worlds.world() as made:
        yield made


@pytest.fixture
async def pool(world: World) -> AsyncIterator[SlotPool]:
    async with SlotPool(host=world.host, size=0) as pool:
        yield pool
