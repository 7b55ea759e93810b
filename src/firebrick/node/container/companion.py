"""More machines for a job, beside its own, for as long as one step needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from firebrick.node.container.image import ContainerImage
from firebrick.node.container.services import Served
from firebrick.node.guest import Guest, Lender, Loan, Say
from firebrick.node.order import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Whom a job has them from: they are as its own machine is. `offer` leads from one to the services for actions while its context lasts, which
    gives the variables that say where they are."""

    lender: Lender
    resources: Resources
    purpose: str
    say: Say
    served: Served
    offer: Callable[[Guest], AbstractAsyncContextManager[Mapping[str, str]]]

    async def image(self, name: str) -> ContainerImage:
        """See `Lender.container`."""
        return await self.lender.container(name, None, self.say)

    @asynccontextmanager
    async def lend(self, image: ContainerImage, what: str) -> AsyncIterator[Loan]:
        """A machine with this image, which finds the job's services; `what` is what it is for."""
        purpose = f"{what} of {self.purpose}"
        lent = self.lender.lend_companion(image.name, self.resources, purpose=purpose, say=self.say)
        async with lent as loan, self.served.found_by(loan.guest):
            yield loan
