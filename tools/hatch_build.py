"""How a wheel is marked: it carries the agent, the page server and the tether, static programs for one architecture, and needs no particular Python."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = (
    Path("src/firebrick/bin/firebrick-tether"),
    Path("src/firebrick/guest/bin/firebrick-agent"),
    Path("src/firebrick/machine/bin/firebrick-pager"),
)


class ProgramsInside(BuildHookInterface[Any]):
    """Refuses to make a wheel without its programs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for program in PROGRAMS:
            if not (Path(self.root) / program).is_file():
                raise FileNotFoundError(f"{program} is missing: a wheel carries it. Run `make agent` first.")
        build_data["pure_python"] = False
        # A static program asks nothing of the C library, so the oldest tag every pip knows is the true one.
        build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"
