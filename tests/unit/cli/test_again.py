"""What a run was asked is remembered without its secrets, and gone on with as it was; what the command line says of kept machines."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from firebrick.cli.again import recall, remember, workflow_of
from firebrick.cli.errors import UsageError
from firebrick.cli.main import app
from firebrick.cli.node import told_settings
from firebrick.cli.order import Wish
from firebrick.cli.runoption import read_environments
from firebrick.home import Home
from firebrick.node.errors import NodeError
from firebrick.node.kept.shelf import VERSION, Kept, Kind
from firebrick.node.order import EnvironmentOrder, Resources, RunOrder, Source
from firebrick.node.settings import Keep
from firebrick.workflow.detect import from_command
from firebrick.workflow.reader import read_workflow

TEXT = "on: push\nname: ci\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path / "home"))
    return Home.find()


def wish(tmp_path: Path, **fields: object) -> Wish:
    given = {"workflow": None, "command": None, "jobs": (), "image": None, "resources": Resources(vcpus=3)}
    return Wish(**{"repository": tmp_path, "secrets": {"TOKEN": "hunter2"}, **given, **fields})


def order(tmp_path: Path, workflow) -> RunOrder:
    source = Source(path=tmp_path, repository="o/r", ref="", sha="")
    return RunOrder(
        id="r", workflow=workflow, source=source, artifact_dir=tmp_path, secrets={"TOKEN": "hunter2"}, collect=("*.o",)
    )


def test_what_is_remembered(tmp_path):
    (tmp_path / "ci.yml").write_text(TEXT)
    remember(tmp_path, wish(tmp_path), order(tmp_path, read_workflow(TEXT, "ci.yml")))
    file = tmp_path / "wish.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "hunter2" not in file.read_text()
    (tmp_path / "ci.yml").write_text("something else")
    asked = recall(tmp_path)
    assert asked.wish == wish(tmp_path, secrets={})
    assert (asked.secrets, asked.collect, asked.rerun) == (("TOKEN",), ("*.o",), "")
    assert workflow_of(asked).name == "ci"


def test_a_command_is_remembered_as_one(tmp_path):
    remember(tmp_path, wish(tmp_path, command="make"), order(tmp_path, from_command("make")))
    asked = recall(tmp_path)
    assert asked.wish.command == "make"
    assert workflow_of(asked) is None


@pytest.mark.parametrize("text", [None, "{", '{"version": 1}'])
def test_what_is_not_known_any_more(tmp_path, text):
    if text is not None:
        (tmp_path / "wish.json").write_text(text)
    with pytest.raises(UsageError, match="what it was asked is not known"):
        recall(tmp_path)


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


def test_nothing_is_kept(home):
    assert invoke("kept", "ls").exit_code == 0
    assert invoke("kept", "ls", "--json").stdout == "[]\n"
    assert isinstance(invoke("kept", "rm").exception, UsageError)
    assert isinstance(invoke("kept", "rm", "last").exception, NodeError)
    assert "no machine of any run is kept" in str(invoke("debug", "last", "--", "ls", "-l").exception)
    assert "no checkpoint of any run is kept" in str(invoke("rerun", "last").exception)
    assert "no checkpoint of a run 'x' is kept" in str(invoke("rerun", "x").exception)
    assert "--checkpoint step" in invoke("rerun", "x").exception.hint


def test_a_shell_needs_a_terminal_and_a_command_does_not(home):
    assert "a shell needs a terminal" in str(invoke("debug", "last").exception)
    assert "no machine" in str(invoke("debug", "last", "job", "--", "true").exception)


def test_what_is_said_of_a_node_is_checked(home):
    assert told_settings(home, None, None, keep=Keep.NEVER, checkpoint="before:3").checkpoint == "before:3"
    for wrong in ("before:0", "before:x", "always", "step ", "step\n"):
        with pytest.raises(UsageError, match="(?s)--checkpoint .* is none of none, asked, step and before:N"):
            told_settings(home, None, None, checkpoint=wrong)


def test_secrets_of_environments_are_not_kept_either(tmp_path):
    environments = {"production": EnvironmentOrder(secrets={"KEY": "hunter3"}, variables={"A": "b"})}
    asked_for = wish(tmp_path, command="make", environments=environments)
    made = replace(order(tmp_path, from_command("make")), environments=environments)
    remember(tmp_path, asked_for, made)
    assert "hunter3" not in (tmp_path / "wish.json").read_text()
    asked = recall(tmp_path)
    assert asked.secrets == ("TOKEN", "production:KEY")
    assert asked.wish.environments == {"production": EnvironmentOrder(variables={"A": "b"})}


def test_what_environments_are_given(monkeypatch):
    monkeypatch.setenv("KEY", "from outside")
    given = read_environments(["prod:KEY", "prod:OTHER=a:b=c", "test:KEY=x"], ["prod:WHERE=there"])
    assert given == {
        "prod": EnvironmentOrder(secrets={"KEY": "from outside", "OTHER": "a:b=c"}, variables={"WHERE": "there"}),
        "test": EnvironmentOrder(secrets={"KEY": "x"}),
    }
    for secrets, variables in ((["KEY=x"], []), (["prod:"], []), (["prod:NONE"], []), ([], ["prod:A"]), ([], [":A=b"])):
        with pytest.raises(UsageError) as caught:
            read_environments(secrets, variables)
        assert "from outside" not in str(caught.value)


def test_only_a_server_runs_again_what_failed(home):
    assert "--server" in invoke("rerun", "last", "--failed").exception.hint
    assert "no address" in str(invoke("rerun", "x", "--server", "nonsense").exception)


def test_what_is_kept_of_a_job_goes_by_either_of_its_names(home):
    def keep() -> None:
        folder = home.kept / "run-1/release.build/2"
        folder.mkdir(parents=True, exist_ok=True)
        record = Kept(
            version=VERSION,
            run="run-1",
            workflow="ci.yml",
            job="release.build",
            title="release / build",
            kind=Kind.FAILED,
            step=1,
            index=1,
            name="make",
            image="base",
            machine="m",
            state="",
            at=time.time(),
            expires=time.time() + 60,
        )
        (folder / "record.json").write_bytes(msgspec.json.encode(record))

    for name in ("release.build", "release / build", "release/build"):
        keep()
        assert "nothing of job other" in str(invoke("kept", "rm", "last", "other").exception)
        assert invoke("kept", "rm", "last", name).output.startswith("removed 1,")
    assert not home.kept.joinpath("run-1").exists()
