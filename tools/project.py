"""Make the git repository of one of the example projects: its source and its workflow, committed.

    python tools/project.py ed build/demo/ed

A name with a folder in examples/ has its source there; another one is the name of a Debian source package. A target that exists is left as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SOURCES = ROOT / "build" / "sources"
# A commit that is the same wherever and whenever it is made.
_IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Example"), ("EMAIL", "example@localhost"), ("DATE", "2024-01-01T00:00:00Z"))
    },
}


def source_of(name: str) -> Path:
    if (EXAMPLES / name).is_dir():
        return EXAMPLES / name
    target = SOURCES / name
    subprocess.run([sys.executable, ROOT / "tools" / "debian_source.py", name, target], check=True)
    return target


def commit(repository: Path, message: str) -> None:
    for argv in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all", "--force"],
        ["commit", "--quiet", "--message", message],
    ):
        subprocess.run(
            ["git", *argv], cwd=repository, check=True, env={"PATH": "/usr/bin:/bin", "HOME": "/", **_IDENTITY}
        )


def make(name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source_of(name), unfinished, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    workflows = unfinished / ".github" / "workflows"
    workflows.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / f"{name}.yml", workflows / "build.yml")
    commit(unfinished, f"The source of {name}, and how to build it")
    unfinished.rename(target)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: project.py NAME TARGET")
    name, target = sys.argv[1], Path(sys.argv[2]).absolute()
    if not target.exists():
        make(name, target)


if __name__ == "__main__":
    main()
