"""The image of an action that has a Dockerfile, with what its build says in the log of the step."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firebrick.dockerfile.file import platform_of
from firebrick.node.action.use import DockerUse
from firebrick.node.container.image import ContainerImage
from firebrick.node.dockerfile.builder import Builder, Terms
from firebrick.node.dockerfile.key import image_scopes
from firebrick.node.dockerfile.source import find_source
from firebrick.node.dockerfile.stage import Report
from firebrick.node.scope import tenant_of

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench


async def built_image(bench: Bench, number: int, use: DockerUse) -> ContainerImage:
    """Found, or built and kept; nothing is left of a build that fails or is given up.

    Raises ActionError with the line of the Dockerfile, ImageError, MachineError, ChannelError, AgentError, TreeError, NodeError."""
    job = bench.supplies.companions.job
    with job.lender.shelter() as scratch:
        source = await find_source(bench, use, scratch, platform=platform_of(platform.machine()))
        group = _Group(bench, number, source.called)
        terms = Terms(
            job=job,
            tenant=tenant_of(bench.order),
            scopes=image_scopes(bench.order),
            limit=bench.settings.containers_limit_mib << 20,
            scratch=scratch,
            report=Report(say=group.say, lines=group.lines, masker=bench.log.masker),
        )
        with group:
            image = await Builder(source, terms).run()
        if not group.used:
            bench.log.line(number, f"The image of '{source.called}' is here already: {image.name}")
        return image


class _Group:
    """The group in the log that a build has; one that has nothing to say has none, and is not `used`."""

    def __init__(self, bench: Bench, number: int, called: str) -> None:
        self._log = bench.log
        self._number = number
        self._called = called
        self.used = False

    def say(self, text: str) -> None:
        if not self.used:
            self.used = True
            self._log.line(self._number, f"##[group]Build container for action use: '{self._called}'")
        self._log.line(self._number, text)

    def lines(self, texts: Sequence[str]) -> None:
        self._log.lines(self._number, texts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.used:
            self._log.line(self._number, "##[endgroup]")
