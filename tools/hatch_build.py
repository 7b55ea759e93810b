"""How a wheel is marked: it carries the agent, a static program for one architecture, and needs no particular Python."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

AGENT = Path("src/firebrick/guest/bin/firebrick-agent")


class AgentInside(BuildHookInterface[Any]):
    """Refuses to make a wheel without the agent."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if not (Path(self.root) / AGENT).is_file():
            raise FileNotFoundError(f"{AGENT} is missing: a wheel carries the agent. Run `make agent` first.")
        build_data["pure_python"] = False
        # A static program asks nothing of the C library, so the oldest tag every pip knows is the true one.
        build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"
