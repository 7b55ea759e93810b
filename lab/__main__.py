"""python -m lab [--project DIR] [--here] [PYTEST ARGUMENT... | -- COMMAND...]"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.image import ImageError
from firebrick.machine import MachineError
from firebrick.process import ProcessError
from lab.binaries import BinaryError
from lab.here import HostError, run_here
from lab.host import ROOT, Place
from lab.rounds import run_rounds
from lab.session import Session, paths_among, run_session

EVIDENCE: Final = ROOT / "build" / "lab" / "evidence"
_USAGE: Final = """%(prog)s [--project DIR] [--here] [--each] [PYTEST ARGUMENT...]
       %(prog)s [--project DIR] -- COMMAND..."""


def main(arguments: Sequence[str]) -> int:
    ours, command = _split(arguments)
    parser = argparse.ArgumentParser(
        prog="tools/lab", usage=_USAGE, description="Run tests, or a command, in an emulated host with KVM."
    )
    parser.add_argument(
        "--project", type=Path, default=ROOT, metavar="DIR", help="the tree to test (default: this one)"
    )
    parser.add_argument("--here", action="store_true", help="run the tests on this host, which must have KVM, as root")
    parser.add_argument(
        "--evidence", type=Path, default=EVIDENCE, metavar="DIR", help="where a failure leaves its traces"
    )
    parser.add_argument(
        "--each", action="store_true", help="give each test file a host of its own, as where no test is named"
    )
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable in the lab")
    asked, tests = parser.parse_known_args(ours)
    try:
        return asyncio.run(_run(asked, tests, command))
    except (ImageError, MachineError, ProcessError, BinaryError, HostError) as error:
        hint = getattr(error, "hint", "")
        sys.stderr.write(f"lab: {error}\n" + (f"     {hint}\n" if hint else ""))
        return 1
    except KeyboardInterrupt:
        return 130


async def _run(asked: argparse.Namespace, tests: Sequence[str], command: Sequence[str]) -> int:
    if asked.here:
        return await run_here(tests, asked.evidence)
    session = Session(
        project=asked.project.resolve(),
        argv=command,
        tests=tests,
        evidence=asked.evidence.resolve(),
        environment=dict(pair.split("=", 1) for pair in asked.env),
    )
    if command or (paths_among(session.project, tests) and not asked.each):
        return await run_session(session, Place.of_tree())
    return await run_rounds(session, Place.of_tree())


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours and pytest's, and the command after `--`."""
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    return given[:at], given[at + 1 :]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
