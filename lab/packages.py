"""The Python packages the tests need, unpacked for the Python of the lab's image, whatever Python this host has."""

from __future__ import annotations

import compileall
import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

from firebrick.process import run
from lab.binaries import pip_environment

PYTHON: Final = (3, 11)  # Debian 12's
# Of what developers install, the part that runs tests.
_TESTING: Final = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
_TIMEOUT_S: Final = 900.0


def wanted_packages(pyproject: Path) -> list[str]:
    """Requirements, as the project states them."""
    project = tomllib.loads(pyproject.read_text())["project"]
    testing = [line for line in project["optional-dependencies"]["dev"] if line.split(">")[0] in _TESTING]
    return sorted([*project["dependencies"], *testing])


async def ensure_packages(cache: Path, wanted: Sequence[str]) -> Path:
    """A directory for PYTHONPATH with the packages `wanted`, made if it is not there. Raises ProcessError."""
    version = ".".join(map(str, PYTHON))
    key = hashlib.sha256("\n".join((version, *wanted)).encode()).hexdigest()[:16]
    target = cache / f"python-{key}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            fresh = Path(directory) / "site"
            await _install(fresh, version, wanted)
            fresh.rename(target)
    return target


async def _install(target: Path, version: str, wanted: Sequence[str]) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    where = ("--target", target, "--only-binary=:all:", "--python-version", version)
    await run([*pip, *where, *wanted], env=pip_environment(), timeout=_TIMEOUT_S, hint="Is the network up?")
    shutil.rmtree(target / "bin", ignore_errors=True)
    if sys.version_info[:2] == PYTHON:  # another Python's byte code is of no use there
        # By content, not by time: a file system image may round the times of files.
        compileall.compile_dir(target, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
