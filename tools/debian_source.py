"""Unpack the source of a Debian package, fetched by apt from this host's own Debian mirror and checked by apt against Debian's signatures.

    python tools/debian_source.py hello build/sources/hello

Needs no root and no `deb-src` line in the host's configuration: apt is given one of its own, made from the lines the host has, and keeps its
lists in build/apt. A target that exists is left as it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

APT = Path("/etc/apt")
STATE = Path(__file__).resolve().parent.parent / "build" / "apt"
KEYRING = "debian-archive-keyring"


def source_entries(apt: Path) -> tuple[str, str]:
    """The host's Debian mirrors as `deb-src` entries: in the one-line format, and in the deb822 format."""
    lines: list[str] = []
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if file.is_file():
            lines += [
                f"deb-src {line[4:]}"
                for line in file.read_text().splitlines()
                if line.startswith("deb ") and "debian" in line
            ]
    stanzas: list[str] = []
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        of_debian = [stanza for stanza in re.split(r"\n\s*\n", file.read_text()) if KEYRING in stanza]
        stanzas += [re.sub(r"(?m)^Types:.*$", "Types: deb-src", stanza).strip() for stanza in of_debian]
    return "\n".join(lines) + "\n", "\n\n".join(stanzas) + "\n"


def apt_options(state: Path) -> list[str]:
    """Options that make apt use `state` for everything it writes, and only Debian's source entries."""
    parts = state / "parts"
    for directory in (parts, state / "lists" / "partial", state / "cache" / "archives" / "partial"):
        directory.mkdir(parents=True, exist_ok=True)
    one_line, deb822 = source_entries(APT)
    (parts / "debian.list").write_text(one_line)
    (parts / "debian.sources").write_text(deb822)
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": parts,
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Retries": "3",
        "Acquire::Languages": "none",
    }
    return [argument for key, value in settings.items() for argument in ("-o", f"{key}={value}")]


def run(argv: list[str], cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{argv[0]} failed with exit status {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}")


def unpack(package: str, target: Path) -> None:
    """Fetch and unpack the source of `package`, Debian's patches applied, as directory `target`."""
    options = apt_options(STATE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        directory = Path(work)
        if not any(STATE.joinpath("lists").glob("*Sources*")):
            run(["apt-get", *options, "-qy", "update"], directory)
        run(["apt-get", *options, "-qy", "source", "--download-only", package], directory)
        (description,) = directory.glob("*.dsc")
        run(["dpkg-source", "-x", description.name, "tree"], directory)
        # Packaging is no part of the project; and what patches left behind is no part of its repository.
        for extra in ("debian", ".pc"):
            shutil.rmtree(directory / "tree" / extra, ignore_errors=True)
        (directory / "tree").rename(target)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: debian_source.py PACKAGE TARGET")
    package, target = sys.argv[1], Path(sys.argv[2]).absolute()
    if not target.exists():
        unpack(package, target)


if __name__ == "__main__":
    main()
