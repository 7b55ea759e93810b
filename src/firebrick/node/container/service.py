"""One service of a job: the program of an image, in a machine of its own, watched until it is ready and while the job runs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NoReturn

from firebrick.guest.errors import GuestError
from firebrick.image.oci_config import Healthcheck, ImageConfig
from firebrick.machine.errors import MachineError
from firebrick.node.container.image import ContainerImage
from firebrick.node.errors import ContainerError
from firebrick.node.guest import Guest
from firebrick.node.lines import LineSplitter
from firebrick.task import alongside, race
from firebrick.workflow.container.container import ContainerSpec

_KEPT_LINES: Final = 200
_LINE: Final = 1024
_INTERVAL_S, _TIMEOUT_S, _RETRIES = 30.0, 30.0, 3
_FIRST_DELAY_S: Final = 0.1
_LONGEST_S: Final = 3600.0
_NANOSECOND: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is run in the machine of a container."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The health check: it passes when `argv` exits with status 0 within `timeout_s`. The service has `start_s` and `retries` intervals for that."""

    argv: tuple[str, ...]
    interval_s: float = _INTERVAL_S
    timeout_s: float = _TIMEOUT_S
    start_s: float = 0.0
    retries: int = _RETRIES

    @property
    def patience_s(self) -> float:
        return min(self.start_s + self.interval_s * self.retries, _LONGEST_S)


def launch_of(spec: ContainerSpec, config: ImageConfig) -> Launch:
    """What the image says, but where the workflow says otherwise; with another entrypoint the image's command has no meaning. Raises ContainerError
    where neither says what to run."""
    option = spec.options.entrypoint
    own = spec.entrypoint if spec.entrypoint is not None else (() if option == "" else (option,) if option else None)
    if own is not None:
        argv = (*own, *(spec.command or ()))
    else:
        argv = (*(config.entrypoint or ()), *(spec.command or config.command or ()))
    if not argv:
        raise ContainerError(
            f"the image {spec.image} does not say what to run", hint="Give the service an `entrypoint` or a `command`."
        )
    return Launch(
        argv=argv,
        env={**config.env, **spec.options.env, **spec.env},
        user=agent_user(spec.options.user or config.user),
        directory=spec.options.directory or config.directory or "/",
    )


def agent_user(text: str) -> str | None:
    """A user of an image as the agent takes it: a name, `uid`, or `uid:gid`; None is root."""
    name, _, group = text.partition(":")
    if name.isdigit() and group.isdigit():
        return text
    return name or None


def check_of(spec: ContainerSpec, config: ImageConfig) -> Check | None:
    """The check of the workflow, else of the image; None where there is none."""
    options, of_image = spec.options.health, config.health or Healthcheck()
    argv = ("sh", "-c", options.command) if options.command else _test(of_image)
    if argv is None or options.disabled or options.command == "none":
        return None

    def first(option: float | None, nanoseconds: int, default: float) -> float:
        return option if option is not None else nanoseconds * _NANOSECOND or default

    return Check(
        argv=argv,
        interval_s=max(first(options.interval_s, of_image.interval, _INTERVAL_S), _FIRST_DELAY_S),
        timeout_s=min(max(first(options.timeout_s, of_image.timeout, _TIMEOUT_S), _FIRST_DELAY_S), _LONGEST_S),
        start_s=first(options.start_period_s, of_image.start_period, 0.0),
        retries=options.retries or of_image.retries or _RETRIES,
    )


def _test(health: Healthcheck) -> tuple[str, ...] | None:
    match health.test:
        case ("CMD", *words) if words:
            return tuple(words)
        case ("CMD-SHELL", line):
            return ("sh", "-c", line)
    return None


@dataclass(kw_only=True)
class Service:
    """Made by `running`. `address` is where others find it, `ports` are those it is found at. `ended` says how, once its program has."""

    name: str
    machine: str
    guest: Guest
    spec: ContainerSpec
    image: ContainerImage
    address: str
    ports: tuple[int, ...]
    ended: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    async def ready(self) -> None:
        """Wait until its health check passes; at once where it has none. Raises ContainerError where it ends first, or does not pass in time."""
        check = check_of(self.spec, self.image.config)
        if check is None:
            return
        await race(self._probe(check), self._lost(), name=f"service-{self.name}-health")

    async def _lost(self) -> NoReturn:
        how = await asyncio.shield(self.ended)
        raise ContainerError(f"the service {self.name} has ended before it was ready: {how}")

    async def _probe(self, check: Check) -> None:
        began, delay, said = time.monotonic(), _FIRST_DELAY_S, ""
        while True:
            passed, said = await self._probe_once(check)
            if passed:
                return
            if time.monotonic() - began + delay > check.patience_s:
                break
            await asyncio.sleep(delay)
            delay = min(delay * 2, check.interval_s)
        raise ContainerError(
            f"the service {self.name} is not healthy: its check has not passed within {check.patience_s:g} s{said}",
            hint="`--health-retries`, `--health-interval` and `--health-start-period` in its `options` give it more time.",
        )

    async def _probe_once(self, check: Check) -> tuple[bool, str]:
        """Whether it passes, and the last words of one that does not."""
        launch = launch_of(self.spec, self.image.config)
        last = deque[str](maxlen=1)
        try:
            async with self.guest.exec(
                check.argv,
                env=launch.env,
                cwd=launch.directory,
                user=launch.user,
                merge=True,
                timeout=check.timeout_s,
            ) as process:
                splitter = LineSplitter(_LINE)
                async for chunk in process.stdout:
                    last.extend(splitter.feed(chunk))
                last.extend(splitter.end())
                status = await process.wait()
        except (GuestError, MachineError) as error:
            return False, f": {error}"
        return status.ok, "".join(f": {line}" for line in last) or f": the check {status}"

    async def run(self) -> None:
        """Its program, to its end."""
        launch = launch_of(self.spec, self.image.config)
        try:
            await self._prepare(launch)
            async with self.guest.exec(
                launch.argv, env=launch.env, cwd=launch.directory, user=launch.user, merge=True
            ) as process:
                splitter = LineSplitter(_LINE)
                async for chunk in process.stdout:
                    self.lines.extend(splitter.feed(chunk))
                self.lines.extend(splitter.end())
                self.ended.set_result(f"its program {await process.wait()}")
        except (GuestError, MachineError) as error:
            self.ended.set_result(str(error))

    async def _prepare(self, launch: Launch) -> None:
        if launch.directory != "/":
            await self.guest.files.mkdir(launch.directory, parents=True)
        if self.spec.options.hostname:
            await self.guest.files.write("/proc/sys/kernel/hostname", self.spec.options.hostname.encode(), parents=True)


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """The service with its program running while the context lasts."""
    launch_of(service.spec, service.image.config)
    async with alongside(service.run(), name=f"service-{service.name}"):
        yield service
