"""Launching: a machine from a kernel, an initramfs and images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from firebrick.machine.driver import Driver
from firebrick.machine.errors import BootError
from firebrick.machine.machine import Machine
from firebrick.machine.place import Place, choose, own_directory
from firebrick.machine.spec import MachineSpec
from firebrick.machine.start import BOOT_DEADLINE_S, met


@asynccontextmanager
async def launch(
    spec: MachineSpec,
    driver: str | Driver = "auto",
    *,
    directory: Path | None = None,
    home: Path | None = None,
    hostname: str | None = None,
    deadline: float = BOOT_DEADLINE_S,
    detached: bool = False,
) -> AsyncIterator[Machine]:
    """Boot a machine; it lives as long as the context.

    `driver` is "auto", "qemu", "firecracker", "fake" or a Driver. `home` is where machines and caches are kept (default: `FIREBRICK_HOME`, else
    `~/.firebrick`), `directory` the machine's own directory (default: `machines/ID` there), which must not exist. `deadline` is how long, in
    seconds, its agent may take to answer. A `detached` machine runs on when this process dies, and can be adopted by another then. Raises
    BootError, with the console, HostError and SpecError."""
    chosen, home = choose(driver, home)
    async with AsyncExitStack() as stack:

        async def boot() -> Machine:
            place = Place(chosen, home, stack.enter_context(own_directory(directory, home)), detached)
            virtual = chosen.boot(spec, place.directory, detached=detached)
            return await stack.enter_async_context(
                met(spec, place, virtual, place.fresh_identity(spec, hostname), deadline)
            )

        try:
            machine = await boot()
        except BootError:
            if not chosen.stayed_silent(chosen.patience(deadline)):
                raise
            await stack.aclose()
            machine = await boot()
        chosen.answered()
        yield machine
