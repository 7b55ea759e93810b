"""`python -m tests.e2e.double_server HOME NUMBER [SETTING=VALUE...]`, `day` standing for a clock that stands on that day of March 2026: the real server as a process, on a node that has no machines.

Its machines are processes named `sleep 31536NUMBER`, so that a test can see whether one is left."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from firebrick.cli.serve import LogFormat, configure_logging
from firebrick.home import Home
from firebrick.server.serve import serve
from firebrick.server.settings import ServeSettings
from tests.clock import HandClock
from tests.node_double import DoubleNode


async def main(home: str, number: str, *more: str) -> None:
    configure_logging("info", LogFormat.JSON)
    node = DoubleNode(machines=2, programs=True, number=int(number))
    given: dict[str, Any] = dict(setting.split("=", 1) for setting in more)
    day = given.pop("day", None)
    if "repositories" in given:
        given["repositories"] = json.loads(given["repositories"])
    settings = ServeSettings(home=Path(home), port=0, allow_local_repos=True, clone_protocols={"http"}, **given)
    clock = None if day is None else HandClock(2026, 3, int(day))
    await serve(Home(Path(home)), node, settings, on_ready=lambda url: print(url, flush=True), clock=clock)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
