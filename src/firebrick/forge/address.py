"""The address of a repository: what may be cloned, under which protocol, and the secret that came inside it, kept apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from firebrick.forge.errors import AddressError, RefError

DEFAULT_PROTOCOLS: Final = frozenset({"https", "ssh"})

_PORTS: Final = {"https": 443, "http": 80}
_LONGEST: Final = 2048
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SHORT_SSH: Final = re.compile(r"(?P<user>[^@:/\s]+)@(?P<host>[^:/\s]+):(?P<path>[^:].*)")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_REF_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\x9f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-./]|[./]$|^@$")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Credential:
    """User name and password or token. Never printed."""

    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a repository is. `url` is what git gets and what is shown, logged and stored: there is no secret in it."""

    url: str
    scheme: str
    host: str
    path: str
    credential: Credential | None = field(default=None, repr=False)
    port: int | None = None
    """The one that is named; None is the protocol's own."""

    @property
    def doors(self) -> tuple[str, ...]:
        """What its server goes by, over HTTP: `host:port`, and `host` alone where that is the port the protocol has by itself. Empty for others."""
        usual = _PORTS.get(self.scheme)
        if usual is None:
            return ()
        port = usual if self.port is None else self.port
        return (f"{self.host}:{port}", self.host) if port == usual else (f"{self.host}:{port}",)

    @property
    def repository(self) -> str:
        """`owner/name`: the last two parts of the path, without `.git`."""
        parts = [p for p in self.path.removesuffix("/").removesuffix(".git").split("/") if p]
        return "/".join(parts[-2:])

    @property
    def place(self) -> str:
        """`host/owner/name`: the same for every address of one repository, and another for that of any other."""
        rest = self.url.partition("://")[2].removesuffix(self.path).rpartition("@")[2].lower()
        return f"{rest}/{self.path.strip('/').removesuffix('.git')}"

    @property
    def origin(self) -> str:
        """What a credential belongs to: protocol, host and port."""
        return self.url.removesuffix(self.path)


def parse_address(text: str, *, protocols: frozenset[str] = DEFAULT_PROTOCOLS) -> Address:
    """Take an address apart: `https://…`, `ssh://…`, `user@host:path`, and what else `protocols` allows (`http`, `git`, `file`).

    Raises AddressError, whose message does not repeat the address: it may hold a secret."""
    if not text or len(text) > _LONGEST or _UNPRINTABLE.search(text):
        raise AddressError(
            "the repository address is empty, too long, or has spaces or control characters in it",
            hint=f"Give an address like https://host/owner/name.git, of at most {_LONGEST} characters.",
        )
    if text.startswith("/"):
        text = f"file://{text}"
    short = _SHORT_SSH.fullmatch(text)
    if short and "://" not in text:
        text = f"ssh://{short['user']}@{short['host']}/{short['path'].lstrip('/')}"
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in protocols:
        raise AddressError(
            f"the protocol of the repository address is not one of {', '.join(sorted(protocols))}",
            hint="The server's settings `clone_protocols` and `allow_local_repos` say what may be cloned.",
        )
    return _local(text) if scheme == "file" else _remote(text, scheme)


def _local(text: str) -> Address:
    path = text.removeprefix("file://")
    if not path.startswith("/") or ".." in path.split("/"):
        raise AddressError("a local repository is named by an absolute path, with no `..` in it")
    return Address(text, "file", "", path)


def _remote(text: str, scheme: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise AddressError("the host of the repository address is not well-formed") from error
    host = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(host):
        raise AddressError("the host of the repository address is missing or not well-formed")
    if parts.query or parts.fragment or not parts.path.strip("/") or ".." in unquote(parts.path).split("/"):
        raise AddressError("the repository address has no path, a query, a fragment, or `..` in it")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    place = host if port is None else f"{host}:{port}"
    if scheme == "ssh":
        if password or (user and not _USER.fullmatch(user)):
            raise AddressError(
                "an ssh address may hold a plain user name, and no password",
                hint="ssh takes its keys from its own configuration.",
            )
        place = f"{user}@{place}" if user else place
        return Address(f"ssh://{place}{parts.path}", scheme, host, parts.path)
    if _UNPRINTABLE.search(user + password):
        raise AddressError("the user name or password in the repository address has control characters in it")
    # A token alone in the user's place is what forges document; git sends it as the user of basic authentication, and so do we.
    credential = Credential(user, password) if user or password else None
    return Address(f"{scheme}://{place}{parts.path}", scheme, host, parts.path, credential, port)


def parse_door(text: str) -> str:
    """`host` or `host:port`, as `Address.doors` has them. Raises AddressError, whose message does not repeat it."""
    host, port = text.lower(), ""
    if not host.endswith("]"):
        host, colon, port = host.rpartition(":") if ":" in host else (host, "", "")
        if colon and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16):
            raise AddressError("the port of a server is not a number from 1 to 65535")
    if not _HOST.fullmatch(host):
        raise AddressError(
            "a server is named by its host, or its host and port", hint="As example.org or example.org:8443."
        )
    return f"{host}:{int(port)}" if port else host


def check_branch(name: str) -> str:
    """`name` if git can have such a branch. Raises RefError."""
    if not name or len(name.encode()) > 255 or _REF_FORBIDDEN.search(name):
        raise RefError("the branch is not a name git could have", hint="Give it without `refs/heads/`, like `main`.")
    return name


def check_commit(name: str) -> str:
    """`name` if it is 7 to 64 lower-case hex digits. Raises RefError."""
    if not _COMMIT.fullmatch(name):
        raise RefError("the commit is not 7 to 64 lower-case hex digits", hint="`git rev-parse HEAD` prints one.")
    return name
