"""One command in one lab: the tree under test goes in, output comes out as it is written, and evidence when it failed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.guest.errors import GuestError
from firebrick.lock import hold_lock
from firebrick.machine import Machine, MachineError
from lab.host import EVIDENCE, PROJECT, PYTHON_SOCKET, Place, restored
from lab.project import staged

TESTS: Final = ("tests/lab", "tests/conformance")
_TEST_S: Final = 400  # everything takes ten times as long
LOST: Final = 70
_SILENCE_S: Final = (
    450.0  # longer than any test may take: a host that stands still says nothing, also not that a test timed out
)
_COLLECT_S: Final = 60.0
_STATUS: Final = "/run/lab-status"


Hear = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Session:
    """What to run in the tree `project`: the command `argv`, or where that is empty pytest with `tests`. Evidence of a failure goes to the directory
    `evidence`, emptied before."""

    project: Path
    evidence: Path
    argv: Sequence[str] = ()
    tests: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def pytest_arguments(project: Path, arguments: Sequence[str]) -> list[str]:
    """What pytest is given: these arguments, and where none of them is a path in `project` all lab tests and the conformance corpus.

    Plugins are named: finding them takes seconds where the processor is emulated."""
    plugins = (
        "-p",
        "pytest_asyncio.plugin",
        "-p",
        "pytest_timeout",
        "-p",
        "no:cacheprovider",
        "--timeout",
        str(_TEST_S),
    )
    return [*plugins, *arguments, *(() if paths_among(project, arguments) else TESTS)]


def paths_among(project: Path, arguments: Sequence[str]) -> list[str]:
    """Those of pytest's arguments that are paths in `project`, or name a test in one."""
    return [word for word in arguments if (project / word.split("::")[0]).exists()]


def pytest_environment(evidence: str) -> dict[str, str]:
    """Beside where the tests find things."""
    return {"FIREBRICK_LAB_EVIDENCE": evidence, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _pass_on(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


async def run_session(session: Session, place: Place, hear: Hear = _pass_on) -> int:
    """Run it in a fresh lab; `hear` gets its output as it comes. Returns its exit status, or LOST where the lab itself was lost."""
    began = time.monotonic()
    shutil.rmtree(session.evidence, ignore_errors=True)
    async with restored(place, _say) as lab:
        async with hold_lock(place.cache / "project.lock"):  # others may test the same tree
            tree = await staged(session.project, place.cache)
            await lab.machine.upload(tree, PROJECT, uid=0, gid=0)
        _say(f"ready after {time.monotonic() - began:.1f} s")
        environment = {**lab.environment, **pytest_environment(EVIDENCE), **session.environment}
        try:
            if session.argv:
                status = await _run_command(lab.machine, session.argv, environment, hear)
            else:
                status = await _run_tests(lab.machine, pytest_arguments(tree, session.tests), environment, hear)
        except (GuestError, MachineError) as error:
            _say(f"the lab was lost: {error}")
            status = LOST
        except TimeoutError:
            _say(f"the lab was lost: it said nothing for {_SILENCE_S:g} s")
            status = LOST
        if status != 0:
            await _collect(lab.machine, session.evidence)
    return status


async def _run_command(host: Machine, argv: Sequence[str], environment: Mapping[str, str], hear: Hear) -> int:
    async with host.exec(argv, cwd=PROJECT, env=environment, merge=True) as process:
        async for chunk in process.stdout:
            hear(chunk)
        end = await process.wait()
    return end.code if end.code is not None else 128 + (end.signal or 0)


async def _run_tests(host: Machine, arguments: Sequence[str], environment: Mapping[str, str], hear: Hear) -> int:
    """By the Python that waits in the host: see `lab.inside`."""
    run = {
        "arguments": arguments,
        "environment": environment,
        "directory": PROJECT,
        "paths": [f"{PROJECT}/src", PROJECT],
        "status": _STATUS,
    }
    async with host.agent.connect_unix(PYTHON_SOCKET) as tunnel:
        await tunnel.write(json.dumps(run).encode() + b"\n")
        while chunk := await asyncio.wait_for(tunnel.read(1 << 16), _SILENCE_S):
            hear(chunk)
    status = int(await host.files.read(_STATUS))
    return status if status >= 0 else 128 - status


async def _collect(host: Machine, target: Path) -> None:
    """Everything that may tell why: what the tests kept, the host's kernel log and its console."""
    target.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(GuestError, MachineError, TimeoutError):
        await asyncio.wait_for(host.download(EVIDENCE, target), _COLLECT_S)
        log = await host.run(["dmesg"], timeout=20)
        (target / "dmesg.txt").write_bytes(log.stdout)
    (target / "console.txt").write_text(host.console())
    _say(f"evidence: {target}")


def _say(text: str) -> None:
    sys.stderr.write(f"lab: {text}\n")
    sys.stderr.flush()
