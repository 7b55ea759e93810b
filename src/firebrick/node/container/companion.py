"""More machines for a job, beside its own, for as long as one step needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from firebrick.node.container.image import ContainerImage
from firebrick.node.container.services import Served
from firebrick.node.guest import Borrower, Guest, Loan


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Those of one job: they are as its own machine is, and find its services. `offer` leads from one to the services for actions while its context
    lasts, which gives the variables that say where they are."""

    job: Borrower
    served: Served
    offer: Callable[[Guest], AbstractAsyncContextManager[Mapping[str, str]]]

    async def image(self, name: str) -> ContainerImage:
        """See `Lender.container`."""
        return await self.job.image(name)

    @asynccontextmanager
    async def lend(self, image: ContainerImage, what: str) -> AsyncIterator[Loan]:
        """A machine with this image, which finds the job's services; `what` is what it is for."""
        async with self.job.companion(image, what) as loan, self.served.found_by(loan.guest):
            yield loan
