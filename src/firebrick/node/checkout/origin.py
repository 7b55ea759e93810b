"""Where repositories of a checkout come from, and what they are called in the workspace.

The run's own one is its directory, or where the server cloned that from. Others are had as actions are: from the folder of mirrors, from the forge of
the settings, and only what `actions_allow` lets in; and, without a credential, from the forge the run's own repository is at. An address in
`.gitmodules` names a repository and is never given to git: what is fetched is one of these.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from firebrick.forge.address import Address, parse_address
from firebrick.forge.errors import AddressError
from firebrick.node.action.allowed import allowed_hint, is_allowed
from firebrick.node.errors import OriginError
from firebrick.node.order import Source
from firebrick.node.origin import PROTOCOLS, find_mirror, find_origin, forge_address, unknown_origin
from firebrick.node.settings import NodeSettings
from firebrick.workflow.uses import RemoteAction

_NAMED: Final = frozenset({"https", "http", "ssh", "git"})
_ANONYMOUS: Final = frozenset({"https", "http"})
_NO_ADDRESS: Final = "its address is none that a submodule may have"
_ADDRESSES: Final = "It is https://, ssh://, user@host:path, or relative to that of its repository."
_LONGEST: Final = 2048
_PART: Final = re.compile(r"[A-Za-z0-9._~+-]{1,100}")
_MOST_PARTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """`url` is what the remote `origin` says in the workspace; `address` is where this host fetches from. `is_directory`: somebody's own repository,
    which is trusted to be what git wrote, and may follow an origin itself."""

    url: str
    address: Address
    is_directory: bool = False


class Origins:
    """Those of one run. `server_url` is the forge that `owner/name` alone is of."""

    def __init__(self, source: Source, settings: NodeSettings, server_url: str) -> None:
        self._source = source
        self._settings = settings
        self._server_url = server_url

    @property
    def _own_url(self) -> str:
        remote = self._source.remote
        return remote.url if remote is not None and remote.host else f"{self._server_url}/{self._source.repository}"

    def is_own_forge(self, server: str) -> bool:
        """Whether the run's own repository is of this forge; it is where none is told."""
        return not server or _host(server) in (_host(self._server_url), _host(self._own_url))

    def directory(self) -> Origin:
        """The run's own repository as it is on this host."""
        return _local(self._own_url, self._source.path.resolve())

    def own(self) -> Origin:
        """The run's own repository, with all its history and refs."""
        remote = self._source.remote
        return self.directory() if remote is None else Origin(url=self._own_url, address=remote)

    def nested(self, parent: Origin, url: str, directory: Path) -> Origin:
        """A submodule that is on this host already, at `directory`. Raises OriginError."""
        try:
            shown = parse_address(resolved(url, parent.url), protocols=_NAMED).url
        except AddressError as error:
            raise OriginError(f"{_NO_ADDRESS}: {error}", hint=_ADDRESSES) from error
        return _local(shown, directory)

    def named(self, repository: str, ref: str, server: str) -> Origin:
        """Another repository by its name, and the forge where that is told. Raises OriginError."""
        self._check_allowed(repository, ref)
        url = f"{server or self._server_url}/{repository}"
        if server:
            return Origin(url=url, address=self._of_host(parse_address(url, protocols=_NAMED), repository))
        if not self._settings.actions and not self._settings.actions_url:
            beside = self._beside(repository)
            if beside is not None:
                return Origin(url=url, address=beside)
        return Origin(url=url, address=find_origin(repository, self._settings))

    def submodule(self, parent: Origin, url: str, commit: str) -> Origin:
        """What `url` in the `.gitmodules` of `parent` means. Raises OriginError."""
        whole = resolved(url, parent.url)
        try:
            address = parse_address(whole, protocols=_NAMED)
        except AddressError as error:
            raise OriginError(f"{_NO_ADDRESS}: {error}", hint=_ADDRESSES) from error
        repository = _repository(address)
        self._check_allowed(repository, commit)
        return Origin(url=address.url, address=self._of_host(address, repository))

    def _of_host(self, address: Address, repository: str) -> Address:
        """Where the repository of one host, and no other, is had from."""
        host, settings = address.host.lower(), self._settings
        is_usual = host in (_host(settings.actions_url), _host(self._server_url))
        mirror = find_mirror(repository, settings, host)
        if mirror is None and is_usual:
            mirror = find_mirror(repository, settings, "")
        if mirror is not None:
            return mirror
        if settings.actions_url and is_usual:
            return forge_address(repository, settings)
        remote = self._source.remote
        beside = self._beside(repository) if remote is not None and remote.host.lower() == host else None
        if beside is not None:
            return beside
        if is_usual:
            raise unknown_origin(repository, settings)
        raise OriginError(
            f"this node is not told where repositories of {address.host} come from",
            hint=f"Keep a mirror of it at {host}/{repository}.git in the folder `actions` of the [node] table of config.toml.",
        )

    def _beside(self, repository: str) -> Address | None:
        """At the forge of the run's own repository, as anybody could have it."""
        remote = self._source.remote
        if remote is None or remote.scheme not in _ANONYMOUS:
            return None
        path = f"/{repository}"
        return dataclasses.replace(remote, url=f"{remote.origin}{path}", path=path, credential=None)

    def _check_allowed(self, repository: str, ref: str) -> None:
        owner, _, name = repository.partition("/")
        if not is_allowed(RemoteAction(owner, name, "", ref), self._settings):
            raise OriginError(
                f"the repository {repository} is not allowed on this node", hint=allowed_hint(self._settings)
            )


def _local(url: str, directory: Path) -> Origin:
    path = os.fspath(directory)
    address = Address(f"file://{quote(os.fsencode(path))}", "file", "", path)
    return Origin(url=url, address=address, is_directory=True)


def resolved(url: str, base: str) -> str:
    """A relative address beside `base`, any other one as it is. Raises OriginError where it leads above the forge."""
    if len(url) > _LONGEST:
        raise OriginError(f"its address has more than {_LONGEST} characters")
    parts, rest = base.rstrip("/").split("/"), url
    if not url.startswith(("./", "../")):
        return url
    while parts and rest.startswith(("./", "../")):
        if rest.startswith("../"):
            parts.pop()
        rest = rest.partition("/")[2]
    if len(parts) < 3 or not rest:  # `https:`, nothing, and the host
        raise OriginError(f"its address {url!r} leads out of the forge of its repository")
    return "/".join([*parts, rest])


def _repository(address: Address) -> str:
    """`owner/name`, or with more folders where the forge has such. Raises OriginError."""
    parts = address.path.strip("/").removesuffix(".git").split("/")
    fine = all(_PART.fullmatch(part) and part.strip(".") for part in parts)
    if not fine or not 2 <= len(parts) <= _MOST_PARTS:
        raise OriginError("its address names no repository of an owner")
    return "/".join(parts)


def _host(url: str) -> str:
    if not url:
        return ""
    try:
        return parse_address(f"{url.rstrip('/')}/x", protocols=PROTOCOLS).host.lower()
    except AddressError:
        return ""
