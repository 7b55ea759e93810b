"""The host's own forwarding, `net.ipv4.ip_forward`: on as long as there are slots, and as it was before after the last.

What it was is noted beside the lock of the host's side before it is changed, so that whoever comes after a killed process can put it back. It is left on
where somebody else filters what this host forwards, and so counts on it: whoever that is found it on, and would not switch it on again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from firebrick.machine import atomic
from firebrick.machine.errors import HostError
from firebrick.machine.network.commands import list_nft
from firebrick.machine.network.namespace import set_settings
from firebrick.machine.network.rules import TABLE

_SWITCH: Final = "ipv4/ip_forward"
_REDIRECTS: Final = "ipv4/conf/all/accept_redirects"
"""The kernel turns it with the switch."""

_SETTINGS: Final = Path("/proc/sys/net")
_OTHERS: Final = Path("/proc/net/ip_tables_names")
"""The tables of those who use the old firewall; `nft` does not see them."""


class _Before(msgspec.Struct, frozen=True):
    """`namespace` is the one it was off in, by its number: nobody puts it back elsewhere."""

    namespace: int
    redirects: str


def is_on() -> bool:
    return (_SETTINGS / _SWITCH).read_text().strip() == "1"


def switch_on(note: Path) -> None:
    """Where it is off, that is noted in the file `note`. Raises HostError."""
    if not is_on():
        before = _Before(_namespace(), (_SETTINGS / _REDIRECTS).read_text().strip())
        atomic.write(note, msgspec.json.encode(before))
        set_settings({_SWITCH: "1"})


async def put_back(note: Path) -> None:
    """As it was before, for whoever knows that nobody has slots. Nothing where nothing is noted. Raises HostError."""
    try:
        before = msgspec.json.decode(note.read_bytes(), type=_Before)
    except FileNotFoundError:
        return
    except (OSError, msgspec.MsgspecError):
        before = None
    if before is not None and before.namespace == _namespace() and not await _is_needed():
        set_settings({_SWITCH: "0"})
        set_settings({_REDIRECTS: before.redirects})
    note.unlink(missing_ok=True)


async def _is_needed() -> bool:
    """Whether somebody beside us has rules for what is forwarded."""
    with contextlib.suppress(OSError):
        if "filter" in _OTHERS.read_text().split():
            return True
    try:
        records = await list_nft("chains")
    except HostError:
        return True  # not known: what is on does less harm
    chains = [record["chain"] for record in records if "chain" in record]
    ours = tuple(TABLE.split())
    return any(chain.get("hook") == "forward" and (chain["family"], chain["table"]) != ours for chain in chains)


def _namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino
