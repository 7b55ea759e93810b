"""More machines for a job, beside its own, for as long as one step needs them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from firebrick.node.container import ContainerImage
from firebrick.node.guest import Lender, Loan, Say
from firebrick.node.order import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Whom a job has them from: they are as its own machine is."""

    lender: Lender
    resources: Resources
    purpose: str
    say: Say

    async def image(self, name: str) -> ContainerImage:
        """See `Lender.container`."""
        return await self.lender.container(name, None, self.say)

    def lend(self, image: ContainerImage, what: str) -> AbstractAsyncContextManager[Loan]:
        """A machine with this image; `what` is what it is for."""
        purpose = f"{what} of {self.purpose}"
        return self.lender.lend_companion(image.name, self.resources, purpose=purpose, say=self.say)
