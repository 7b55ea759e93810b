"""The programs the network is made with, `ip`, `tc` and `nft`, each fed a whole list of commands at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from firebrick.machine.errors import HostError
from firebrick.process import ProcessError, run

NAMESPACES: Final = Path("/run/netns")
_TIMEOUT_S: Final = 30.0
_HINT: Final = "Networks need root, and the packages iproute2 and nftables."


async def ip(commands: Sequence[str], *, inside: str | None = None) -> None:
    """Run commands of `ip`, in the namespace `inside` where one is named; the first that fails ends it. Raises HostError."""
    where = [] if inside is None else ["-n", inside]
    await _call(["ip", *where, "-batch", "-"], "".join(f"{line}\n" for line in commands))


async def tc(commands: Sequence[str], *, inside: str) -> None:
    """Run commands of `tc` in a namespace; the first that fails ends it. Raises HostError."""
    await _call(["tc", "-n", inside, "-batch", "-"], "".join(f"{line}\n" for line in commands))


async def nft(ruleset: str, *, inside: str | None = None) -> None:
    """Apply a ruleset, all of it or, raising HostError, nothing."""
    await _call([*entering(inside), "nft", "-f", "-"], ruleset)


async def list_nft(*what: str, inside: str | None = None) -> list[dict[str, Any]]:
    """What `nft list` knows, as records. Raises HostError, also where there is no such thing."""
    text = await _call([*entering(inside), "nft", "--json", "list", *what], "")
    records: list[dict[str, Any]] = json.loads(text)["nftables"]
    return records


def entering(namespace: str | None) -> list[str]:
    """The words before a command that put it into a namespace."""
    return [] if namespace is None else ["nsenter", f"--net={NAMESPACES / namespace}", "--"]


async def _call(argv: list[str], text: str) -> str:
    try:
        return (await run(argv, input=text.encode(), timeout=_TIMEOUT_S, hint=_HINT)).text
    except ProcessError as error:
        raise HostError(str(error), hint=error.hint) from error
