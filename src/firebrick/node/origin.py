"""Where repositories come from that are not the run's own: a folder of mirrors first, and else the forge, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from firebrick.forge.address import Address, parse_address
from firebrick.forge.errors import AddressError
from firebrick.node.errors import OriginError
from firebrick.node.settings import NodeSettings

PROTOCOLS: Final = frozenset({"https", "http", "ssh", "file"})
_HAVE: Final = "Set `actions` in the [node] table of config.toml to a folder of bare repositories, or `actions_url` to the address of a forge."


def find_origin(repository: str, settings: NodeSettings) -> Address:
    """Where `owner/name` is had from. Raises OriginError where this node is not told where from."""
    mirror = find_mirror(repository, settings)
    if mirror is not None:
        return mirror
    if settings.actions_url:
        return forge_address(repository, settings)
    raise unknown_origin(repository, settings)


def unknown_origin(repository: str, settings: NodeSettings) -> OriginError:
    """What to say where neither has it."""
    if settings.actions:
        return OriginError(
            f"there is no {repository}.git in {settings.actions}",
            hint=f"Make it: git clone --mirror URL {settings.actions}/{repository}.git",
        )
    return OriginError("this node is not told where actions come from", hint=_HAVE)


def forge_address(repository: str, settings: NodeSettings) -> Address:
    """At the forge of the settings. Raises OriginError."""
    return _parsed(f"{settings.actions_url.rstrip('/')}/{repository}")


def find_mirror(repository: str, settings: NodeSettings, host: str | None = None) -> Address | None:
    """`<folder>/<owner>/<name>.git`, or `<folder>/<host>/<owner>/<name>.git` of whichever host has it, in the order of their names. With a `host` that
    of this one alone, and with an empty one the first alone. Raises OriginError for a folder that cannot be named to git."""
    if not settings.actions:
        return None
    folder = Path(settings.actions).expanduser()
    if host is None:
        places = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())] if folder.is_dir() else []
    else:
        places = [folder / host] if "/" not in host and host not in (".", "..") else []
    below = f"{repository}.git"
    found = next((place / below for place in places if (place / below).is_dir()), None)
    return None if found is None else _parsed(str(found.absolute()))


def _parsed(text: str) -> Address:
    try:
        return parse_address(text, protocols=PROTOCOLS)
    except AddressError as error:
        raise OriginError(str(error), hint=_HAVE) from error
