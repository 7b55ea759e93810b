"""Meeting a machine's agent: for the first time, and again after a save that has cost its connection."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from firebrick.guest.client import Agent, Identity
from firebrick.guest.errors import ChannelError, GuestError
from firebrick.machine.driver import Exit, VirtualMachine

_AGAIN_S: Final = 0.01
_FIRST_TRY_S: Final = 2.0
_REJOIN_S: Final = 30.0


async def meet(
    vm: VirtualMachine,
    identity: Identity,
    stack: AsyncExitStack,
    deadline: float,
    *,
    adopted: bool,
    ended: asyncio.Future[Exit],
) -> Agent:
    """Connect and greet, again where the connection is lost on the way: a guest that has just been restored may drop the first. An agent that
    was in the middle of a frame with its last host breaks the first one off, or does not hear it, and is well with the next: so one that is
    adopted is tried with more patience each time. There is no further try when `ended` is done. The connection lives in `stack`, which is empty."""
    patience = _FIRST_TRY_S if adopted else deadline
    while True:
        try:
            stream = await vm.channel()
            agent = await stack.enter_async_context(
                Agent.connect(stream, identity, timeout=patience, takes_over=adopted)
            )
            if adopted:
                async with asyncio.timeout(patience):
                    await agent.ping()
        except (ChannelError, OSError) as error:  # TimeoutError is an OSError
            await stack.aclose()
            if ended.done() or not (adopted or _is_a_loss(error)):
                raise
        else:
            return agent
        patience *= 2
        await asyncio.sleep(_AGAIN_S)


async def rejoin(vm: VirtualMachine, agent: Agent, identity: Identity) -> None:
    """Give an agent that was parted from a connection again. The first may be lost as well. Raises TimeoutError."""
    async with asyncio.timeout(_REJOIN_S):
        while True:
            stream = await vm.channel()
            try:
                await agent.rejoin(stream, identity)
            except ChannelError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return


def _is_a_loss(error: Exception) -> bool:
    """Whether the connection was lost, and not given up because of what came over it."""
    return isinstance(error, ChannelError) and not isinstance(error.__cause__, GuestError)
