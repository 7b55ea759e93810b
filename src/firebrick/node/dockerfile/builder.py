"""The image of an action, from its Dockerfile: found, or built in machines and kept.

    plan          which stages are needed, what each begins from, its operations, and the key of all that: nothing has been run
    image         the kept image of a stage, else its machine, its operations, and the image of what became of its root
    exported      files of a stage or image that others copy, brought to this host

One machine at a time. What is built in it is hostile, as every job is, and so is what it says of its root."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import SCRATCH, Origin
from firebrick.dockerfile.work import Config, Copy, Work, needed_stages, work_of
from firebrick.guest.errors import AgentError, TreeError
from firebrick.guest.tree import in_thread
from firebrick.image.oci_config import ImageConfig
from firebrick.node.container.image import ContainerImage
from firebrick.node.dockerfile.context import Chosen, ContextError
from firebrick.node.dockerfile.key import content_key, scoped
from firebrick.node.dockerfile.source import BuildSource
from firebrick.node.dockerfile.stage import Budget, Report, archive_root, carry_out, taken_out
from firebrick.node.errors import ContainerError
from firebrick.node.guest import Borrower, Guest
from firebrick.results.scope import Scopes

_EMPTY_ARCHIVE: Final = bytes(1024)
_DIGEST_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an image is built: `limit` is in bytes, of all files of one stage; `tenant` and `scopes` say who may have what was built; `scratch` is
    a directory of this host, as long as the build."""

    job: Borrower
    tenant: str
    scopes: Scopes
    limit: int
    scratch: Path
    report: Report


@dataclass(slots=True, kw_only=True)
class _Planned:
    """A stage that is needed. `files` are those of the context that each `COPY`, by its number, means."""

    base: Origin
    work: Work
    key: str
    files: dict[int, tuple[Chosen, ...]] = field(default_factory=dict)


class Builder:
    """Of one Dockerfile. Used by one task."""

    def __init__(self, source: BuildSource, terms: Terms) -> None:
        self._source = source
        self._terms = terms
        self._stages: dict[int, _Planned] = {}
        self._images: dict[str, ContainerImage] = {}
        self._exported: dict[tuple[int, int], tuple[Chosen, ...]] = {}
        self._budget = Budget(terms.limit)

    async def run(self) -> ContainerImage:
        """The image of the last stage. Raises ActionError, ContainerError, ImageError, MachineError, ChannelError, NodeError."""
        last = len(self._source.file.stages) - 1
        for number in needed_stages(self._source.file):
            await self._plan(number)
        name = await self._image(last)
        return ContainerImage(name=name, config=_image_config(self._stages[last].work.config))

    # --- plan ---

    async def _plan(self, number: int) -> None:
        stage = self._source.file.stages[number]
        base, config = await self._begin(stage.line, stage.base)
        try:
            work = await in_thread(work_of, self._source.file, number, config)
        except DockerfileError as error:
            raise self._source.fault(error.line, str(error), error.hint) from error
        planned = _Planned(base=stage.base, work=work, key="")
        digests: dict[int, str] = {}
        for at, operation in enumerate(work.operations):
            if isinstance(operation, Copy):
                digests[at] = await self._files(planned, at, operation)
        planned.key = await in_thread(content_key, base, self._source.file.platform, work.operations, digests)
        self._stages[number] = planned

    async def _begin(self, line: int, origin: Origin) -> tuple[str, Config]:
        """What a stage begins from: its identity, and how it is run."""
        if isinstance(origin, int):
            return self._stages[origin].key, self._stages[origin].work.config
        if origin == SCRATCH:
            return SCRATCH, Config()
        image = await self._pulled(line, origin)
        return image.digest or image.name, _config(image.config)

    async def _pulled(self, line: int, name: str) -> ContainerImage:
        """An image by its name, exactly as it is now: the name may mean another one soon."""
        if name not in self._images:
            try:
                found = await self._terms.job.image(name)
            except ContainerError as error:
                raise self._source.fault(line, str(error), error.hint) from error
            exact = found.digest[:_DIGEST_SHOWN] or found.name
            self._images[name] = replace(found, name=exact)
        return self._images[name]

    async def _files(self, planned: _Planned, at: int, copy: Copy) -> str:
        """What decides which files these are."""
        if copy.origin is not None:
            return (await self._begin(copy.line, copy.origin))[0]
        try:
            planned.files[at] = await in_thread(self._source.context.choose, copy.sources)
            return await in_thread(self._source.context.digest, planned.files[at])
        except (ContextError, OSError) as error:
            raise self._source.fault(copy.line, str(error)) from error

    # --- carry out ---

    async def _image(self, number: int) -> str:
        """The name of the stage's image, built if nobody has."""
        planned, built = self._stages[number], self._terms.job.lender.built
        if (found := self._kept(planned.key)) is not None:
            return found
        key = scoped(planned.key, self._terms.tenant, self._terms.scopes.write or "")
        async with built.making(key, lambda: self._terms.report.say("Another job builds this image already.")):
            if (found := self._kept(planned.key)) is not None:
                return found
            async with self._machine(number) as guest:
                self._terms.report.say("Making an image of what was built")
                write = partial(archive_root, guest, limit=self._terms.limit)
                name = await built.make(key, write, _described(self._source.called))
                self._terms.report.say(f"Kept as the image {name}")
                return name

    def _kept(self, key: str) -> str | None:
        terms = self._terms
        names = (terms.job.lender.built.find(scoped(key, terms.tenant, scope)) for scope in terms.scopes.read)
        return next((name for name in names if name is not None), None)

    @asynccontextmanager
    async def _machine(self, number: int) -> AsyncIterator[Guest]:
        """The machine of a stage, with all its operations done."""
        planned = self._stages[number]
        files = dict(planned.files)
        for at, operation in enumerate(planned.work.operations):
            if isinstance(operation, Copy) and operation.origin is not None:
                files[at] = await self._taken(number, at, operation.origin)
        name = await self._root(planned.base)
        async with self._lent(name) as guest:
            work = planned.work
            await carry_out(guest, self._source, work, files, self._terms.report, limit=self._terms.limit)
            yield guest

    @asynccontextmanager
    async def _lent(self, name: str) -> AsyncIterator[Guest]:
        image = ContainerImage(name=name, config=ImageConfig())
        async with self._terms.job.booted(image, f"build of {self._source.called}") as loan:
            yield loan.guest

    async def _root(self, origin: Origin) -> str:
        """The name of the image a machine begins from."""
        if isinstance(origin, int):
            return await self._image(origin)
        return self._images[origin].name if origin != SCRATCH else await self._empty()

    async def _empty(self) -> str:
        """The image there is nothing in: the same for everybody."""
        built, key = self._terms.job.lender.built, content_key(SCRATCH, "", (), {})
        async with built.making(key, lambda: None):
            return built.find(key) or await built.make(key, _write_nothing, "an empty root")

    # --- what stages copy of others ---

    async def _taken(self, number: int, at: int, origin: Origin) -> tuple[Chosen, ...]:
        """What one `COPY --from` means. All that is copied of one origin is taken out of one machine, the first time."""
        if (number, at) not in self._exported:
            async with self._given(origin) as guest:
                await self._take_out(guest, origin)
        return self._exported[number, at]

    def _given(self, origin: Origin) -> AbstractAsyncContextManager[Guest]:
        return self._of_stage(origin) if isinstance(origin, int) else self._of_image(origin)

    @asynccontextmanager
    async def _of_stage(self, number: int) -> AsyncIterator[Guest]:
        """Its machine, or one of its image where that is kept, or will be because another stage begins from it."""
        name = self._kept(self._stages[number].key)
        if name is None and any(planned.base == number for planned in self._stages.values()):
            name = await self._image(number)
        async with self._machine(number) if name is None else self._lent(name) as guest:
            yield guest

    @asynccontextmanager
    async def _of_image(self, name: str) -> AsyncIterator[Guest]:
        async with self._lent(await self._root(name)) as guest:
            yield guest

    async def _take_out(self, guest: Guest, origin: Origin) -> None:
        for number, planned in self._stages.items():
            for at, operation in enumerate(planned.work.operations):
                if isinstance(operation, Copy) and operation.origin == origin:
                    target = self._terms.scratch / f"copy-{number}-{at}"
                    try:
                        taken = await taken_out(guest, operation.sources, target, self._budget)
                    except (ContextError, AgentError, TreeError) as error:
                        raise self._source.fault(operation.line, str(error)) from error
                    self._exported[number, at] = taken


def _described(called: str) -> str:
    """What the owner of the host is shown of it: no more than a line, and no control characters."""
    return f"built of {''.join(c if c.isprintable() else '?' for c in called)[:200]}"


async def _write_nothing(fd: int) -> None:
    os.write(fd, _EMPTY_ARCHIVE)


def _config(image: ImageConfig) -> Config:
    return Config(
        entrypoint=image.entrypoint,
        command=image.command,
        env=image.env,
        user=image.user,
        directory=image.directory,
    )


def _image_config(config: Config) -> ImageConfig:
    return ImageConfig(
        entrypoint=config.entrypoint,
        command=config.command,
        environment=tuple(f"{name}={value}" for name, value in config.env.items()),
        user=config.user,
        directory=config.directory,
    )
