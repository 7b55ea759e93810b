import pytest

from firebrick.workflow.detect import detect, from_command
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.plan import plan
from firebrick.workflow.reader import read_workflow


def scripts(workflow) -> list[str]:
    return [step.run.text(Scope()) for step in workflow.jobs["build"].steps if step.run is not None]


@pytest.mark.parametrize(
    ("names", "kind", "command"),
    [
        (["Cargo.toml", "Makefile"], "cargo", "cargo build --release"),
        (["Cargo.toml", "Cargo.lock"], "cargo", "cargo build --release --locked"),
        (["configure", "configure.ac", "Makefile.in", "Makefile"], "autotools", "sh ./configure"),
        (["configure.ac", "Makefile.am"], "autotools", "autoreconf --force --install"),
        (["CMakeLists.txt", "Makefile", "package.json"], "cmake", "cmake -S . -B build"),
        (["setup.py", "Makefile"], "python", "python3 -m pip wheel"),
        (["pyproject.toml"], "python", "python3 -m pip wheel"),
        (["Makefile", "package.json"], "make", "make -j"),
        (["GNUmakefile"], "make", "make -j"),
        (["package.json"], "npm", "npm install"),
        (["package.json", "package-lock.json"], "npm", "npm ci"),
    ],
)
def test_kinds(names, kind, command):
    found = detect(names)
    assert found.kind == kind
    assert any(command in script for script in scripts(found.workflow))
    assert found.workflow.jobs["build"].steps[0].uses == "actions/checkout@v4"
    assert found.collect
    assert [job.key for job in plan(found.workflow, contexts={}).jobs] == ["build"]


def test_the_text_is_the_workflow():
    found = detect(["CMakeLists.txt"])
    assert read_workflow(found.text, "cmake (detected)") == found.workflow


def test_nothing_known():
    assert detect(["README", "LICENSE", "cargo.toml"]) is None
    assert detect([]) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[tool.ruff]\nline-length = 100\n", "make"),
        ("[project]\nname = 'x'\n", "python"),
        ("[build-system]\nrequires = []\n", "python"),
        ("broken [", "python"),
    ],
)
def test_a_pyproject_that_only_configures_tools_builds_nothing(text, kind):
    assert detect(["pyproject.toml", "Makefile"], {"pyproject.toml": text}.get).kind == kind


@pytest.mark.parametrize(
    ("text", "builds"),
    [('{"scripts": {"build": "tsc"}}', True), ('{"scripts": []}', False), ("[]", False), ("broken", False)],
)
def test_npm_builds_only_what_has_a_script(text, builds):
    found = detect(["package.json"], {"package.json": text}.get)
    assert ("npm run build\n" in scripts(found.workflow)) is builds


@pytest.mark.parametrize(
    "command", ["make all", "echo ${{ github.token }}", "a: b\n  - c\n#d", "\x00\x1b[31m", "x" * 100_000, "'", ""]
)
def test_a_command_is_taken_as_it_is(command):
    assert scripts(from_command(command)) == [command]
