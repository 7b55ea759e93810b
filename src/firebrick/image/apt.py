"""Debian's archive, as this host is set up to reach it, for users without root: apt with directories of its own.

What comes out of here was checked by apt against Debian's keys. The host's sources say where the archive is; what else the host has
configured (other archives, hooks) plays no part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.image.errors import BuildError, HostLacksError
from firebrick.image.progress import Progress
from firebrick.process import ProcessError, run

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_POCKETS: Final = ("", "-updates", "-security")
_FORMAT: Final = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(LABEL)\t$(TARGET_OF)"
_LIST_TIMEOUT_S: Final = 30.0
_DOWNLOAD_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive of this host: where, and which release of it (`bookworm`, `bookworm-security`)."""

    uri: str
    release: str
    label: str


async def host_archives() -> list[Archive]:
    """The binary package archives the host's apt knows, in its order."""
    argv = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    rows = (await run(argv, timeout=_LIST_TIMEOUT_S)).text.splitlines()
    fields = [row.split("\t") for row in rows]
    return list(dict.fromkeys(Archive(f[0], f[1], f[3]) for f in fields if len(f) == 5 and f[4] == "deb"))


def source_lines(
    archives: Sequence[Archive], suite: str, components: Sequence[str], mirror: str | None, kind: str = "deb"
) -> list[str]:
    """Lines of a sources.list for `suite`: the host's own archives of it, else those of the release the host runs with the name replaced.

    `mirror` (the environment's FIREBRICK_DEBIAN_MIRROR) wins over both. Raises HostLacksError where nothing tells where Debian is."""
    if mirror:
        found = [(mirror, suite), (mirror, f"{suite}-updates")]
    else:
        found = [(a.uri, a.release) for a in archives if a.release in {suite + p for p in _POCKETS}]
        found = found or _of_other_release(archives, suite)
    if not found:
        raise HostLacksError(
            f"no package source of this host has Debian {suite}",
            hint="Add one below /etc/apt/sources.list.d, or set FIREBRICK_DEBIAN_MIRROR to the address of a mirror.",
        )
    return [
        f"{kind} [signed-by={KEYRING}] {uri} {release} {' '.join(components)}" for uri, release in dict.fromkeys(found)
    ]


def _of_other_release(archives: Sequence[Archive], suite: str) -> list[tuple[str, str]]:
    pockets = {"Debian": ("", "-updates"), "Debian-Security": ("-security",)}
    seen = dict.fromkeys((a.uri, a.label) for a in archives if a.label in pockets)
    return [(uri, suite + pocket) for uri, label in seen for pocket in pockets[label]]


async def debian_sources(suite: str, components: Sequence[str], *, kind: str = "deb") -> list[str]:
    """The sources.list lines for Debian `suite` on this host."""
    if not KEYRING.is_file():
        raise HostLacksError(
            "Debian's archive keys are not on this host", hint="Install the Debian package debian-archive-keyring."
        )
    return source_lines(await host_archives(), suite, components, os.environ.get("FIREBRICK_DEBIAN_MIRROR"), kind)


async def proxy_environment() -> dict[str, str]:
    """The proxies the host's apt uses, as environment variables, so that they do not end up inside an image."""
    names = {"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy"}
    found: dict[str, str] = {}
    for variable, option in names.items():
        done = await run(["apt-config", "shell", "value", option], timeout=_LIST_TIMEOUT_S)
        if (match := re.fullmatch(r"value='([^']*)'", done.text.strip())) and match[1]:
            found[variable] = match[1]
    return found


class Apt:
    """apt in the directory `root`, with nothing of the host's but its proxies. Make one with `Apt.open`."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self._root = root
        self._env = environment

    @classmethod
    async def open(cls, root: Path, sources: Sequence[str], progress: Progress) -> Apt:
        """Set apt up in `root` (made if missing) and fetch the lists of `sources`."""
        for part in ("lists/partial", "cache/archives/partial", "etc"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / "etc/sources.list").write_text("\n".join(sources) + "\n")
        (root / "etc/apt.conf").write_text(_configuration(root))
        apt = cls(root, {"APT_CONFIG": str(root / "etc/apt.conf"), **await proxy_environment()})
        progress.stage("Fetching package lists")
        await apt._run("apt-get", "update", "--error-on=any")
        return apt

    async def show(self, package: str) -> dict[str, str]:
        """The fields of the newest version of a binary package."""
        text = await self._run("apt-cache", "show", "--no-all-versions", package)
        return dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Za-z-]+: ", line))

    async def download(self, package: str, into: Path) -> Path:
        """Fetch one .deb, checked against the signed lists, into the empty directory `into`."""
        await self._run("apt-get", "download", package, cwd=into)
        return _only(into, "*.deb", package)

    async def download_source(self, package: str, into: Path) -> Path:
        """Fetch the source of a package, checked against the signed lists, into the empty directory `into`; returns its .dsc.

        The lists must be of `deb-src` sources."""
        await self._run("apt-get", "source", "--download-only", package, cwd=into)
        return _only(into, "*.dsc", package)

    async def _run(self, *argv: str, cwd: Path | None = None) -> str:
        try:
            return (await run(argv, env=self._env, cwd=cwd, timeout=_DOWNLOAD_TIMEOUT_S)).text
        except ProcessError as error:
            raise BuildError(str(error), hint=error.hint or "Does `apt-get update` work on this host?") from error


def _only(directory: Path, pattern: str, package: str) -> Path:
    """What apt has just left in the directory, which was empty. Raises BuildError unless it is one file."""
    files = list(directory.glob(pattern))
    if len(files) != 1:
        raise BuildError(f"fetching {package} left {len(files)} files {pattern} in {directory} instead of one")
    return files[0]


def _configuration(root: Path) -> str:
    """The whole configuration: the parts of the host's are left out, because hooks and sources are among them."""
    return f"""\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{root}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{root}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "";
"""
