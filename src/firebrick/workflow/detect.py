"""A workflow for a repository that has none, from what lies at its top, or from one command.

Tried in this order, the first that fits wins: cargo (`Cargo.toml`), autotools (`configure`, `configure.ac`), cmake (`CMakeLists.txt`), python
(`pyproject.toml` with a build or a project in it, `setup.py`), make (`GNUmakefile`, `Makefile`, `makefile`), npm (`package.json`). A `Makefile` beside one
of the others is nearly always made by it, or a collection of shortcuts; a `pyproject.toml` without a project only configures tools.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from firebrick.workflow.problem import Position
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Workflow
from firebrick.workflow.template import Template

Read = Callable[[str], str | None]
"""The text of a file at the top of the repository, or None where it cannot be had."""

OUTPUT = "firebrick-output"
"""Directory of the workspace into which native builds put the programs and libraries they made."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found. `text` is the workflow as a file, `collect` are globs of what it makes, relative to the workspace."""

    kind: str
    workflow: Workflow
    text: str
    collect: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """Steps as name and script; what they make."""

    steps: tuple[tuple[str, str], ...]
    collect: tuple[str, ...]


def detect(names: Iterable[str], read: Read = lambda _: None) -> Detection | None:
    """The workflow for a repository with these files at its top, or None where nothing is known."""
    present = frozenset(names)
    for kind, find in _KINDS:
        recipe = find(present, read)
        if recipe is not None:
            text = _render(kind, recipe.steps)
            return Detection(kind, read_workflow(text, f"{kind} (detected)"), text, recipe.collect)
    return None


def from_command(command: str) -> Workflow:
    """A workflow of one job that checks the repository out and runs `command` in the default shell, exactly as it is given."""
    workflow = read_workflow(_render("command", (("Run the command", "true"),)), "command")
    job = workflow.jobs["build"]
    step = replace(job.steps[-1], name=None, run=Template(command, Position(), (command,)))
    return replace(workflow, jobs={"build": replace(job, steps=(*job.steps[:-1], step))})


def _render(kind: str, steps: Iterable[tuple[str, str]]) -> str:
    head = f"name: {kind}\non: push\njobs:\n  build:\n    runs-on: toolchain\n    steps:\n      - uses: actions/checkout@v4\n"
    parts = [
        f"      - name: {name}\n        run: |\n{textwrap.indent(script.strip(), ' ' * 10)}\n" for name, script in steps
    ]
    return head + "".join(parts)


# Copies every program and library below the workspace: what begins as ELF or as an archive, wherever the build has put it.
_GATHER = f"""
find . \\( -name .git -o -name CMakeFiles -o -path ./{OUTPUT} \\) -prune -o \\
  -type f \\( -perm -u+x -o -name '*.a' -o -name '*.so*' \\) -print |
while IFS= read -r file; do
  case "$(od -An -tx1 -N4 "$file" | tr -d ' \\n')" in
    7f454c46 | 213c6172) ;;
    *) continue ;;
  esac
  mkdir -p "{OUTPUT}/$(dirname "$file")"
  cp -p "$file" "{OUTPUT}/$file"
done
"""
_GATHERED = ("Gather what was built", _GATHER)
_MAKE = ("Build", 'make -j"$(nproc)"')


def _cargo(present: frozenset[str], _: Read) -> _Recipe | None:
    if "Cargo.toml" not in present:
        return None
    locked = " --locked" if "Cargo.lock" in present else ""
    made = ("target/release/*", "!target/release/*.d", "!target/release/.*")
    inner = tuple(f"!target/release/{name}" for name in ("build", "deps", "examples", "incremental"))
    return _Recipe((("Build", f"cargo build --release{locked}"),), made + inner)


# A checkout gives all files the time of the checkout; what was generated must be newer than what it was generated from, or make
# wants the generators.
_FRESHEN = """
find . -name aclocal.m4 -exec touch {} +
find . \\( -name configure -o -name Makefile.in -o -name 'config*.in' \\) -exec touch {} +
find . -name '*.info' -exec touch {} +
"""


def _autotools(present: frozenset[str], _: Read) -> _Recipe | None:
    if "configure" in present:
        first: tuple[tuple[str, str], ...] = (("Keep generated files in order", _FRESHEN),)
    elif "configure.ac" in present or "configure.in" in present:
        first = (("Generate configure", "autoreconf --force --install"),)
    else:
        return None
    return _Recipe((*first, ("Configure", "sh ./configure"), _MAKE, _GATHERED), (f"{OUTPUT}/**",))


def _cmake(present: frozenset[str], _: Read) -> _Recipe | None:
    if "CMakeLists.txt" not in present:
        return None
    steps = (
        ("Configure", "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release"),
        ("Build", 'cmake --build build --parallel "$(nproc)"'),
        _GATHERED,
    )
    return _Recipe(steps, (f"{OUTPUT}/**",))


def _make(present: frozenset[str], _: Read) -> _Recipe | None:
    if not present & {"GNUmakefile", "Makefile", "makefile"}:
        return None
    return _Recipe((_MAKE, _GATHERED), (f"{OUTPUT}/**",))


def _python(present: frozenset[str], read: Read) -> _Recipe | None:
    if "setup.py" not in present and not ("pyproject.toml" in present and _is_project(read("pyproject.toml"))):
        return None
    # What a build needs is in the image: a machine has no network unless it was asked for.
    wheel = "python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir dist ."
    return _Recipe((("Build a wheel", wheel),), ("dist/*",))


def _is_project(text: str | None) -> bool:
    """A file that could not be had, or read, is taken for a project: the build says what is wrong with it."""
    try:
        return text is None or not {"build-system", "project"}.isdisjoint(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return True


def _npm(present: frozenset[str], read: Read) -> _Recipe | None:
    if "package.json" not in present:
        return None
    locked = present & {"package-lock.json", "npm-shrinkwrap.json"}
    steps = (
        ("Install dependencies", "npm ci" if locked else "npm install"),
        *((("Build", "npm run build"),) if _has_build_script(read("package.json")) else ()),
        ("Pack", "npm pack"),
    )
    return _Recipe(steps, ("*.tgz", "dist/**", "build/**"))


def _has_build_script(text: str | None) -> bool:
    try:
        package = json.loads(text or "{}")
    except ValueError:
        return False
    scripts = package.get("scripts") if isinstance(package, dict) else None
    return isinstance(scripts, dict) and "build" in scripts


_KINDS: tuple[tuple[str, Callable[[frozenset[str], Read], _Recipe | None]], ...] = (
    ("cargo", _cargo),
    ("autotools", _autotools),
    ("cmake", _cmake),
    ("python", _python),
    ("make", _make),
    ("npm", _npm),
)
