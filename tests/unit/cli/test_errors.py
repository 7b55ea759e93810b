"""Errors are sentences; the exit status says whose they are."""

import pytest

from firebrick.cli.errors import FAILURE, USAGE, UsageError, report
from firebrick.cli.main import VERBS, main
from firebrick.cli.runoption import read_secrets
from firebrick.node.errors import NodeError
from firebrick.workflow.problem import Position, Problem, WorkflowError


def test_a_sentence_and_a_hint(capsys):
    assert report(NodeError("cannot do it", hint="Do this.")) == FAILURE
    assert capsys.readouterr().err == "error: cannot do it\nhint:  Do this.\n"


def test_usage_and_mistakes_in_a_workflow_end_with_two(capsys):
    assert report(UsageError("what?")) == USAGE
    mistake = WorkflowError((Problem("ci.yml", Position(3, 5), "Unexpected value 'x'"),))
    assert report(mistake) == USAGE
    assert "ci.yml (Line: 3, Col: 5): Unexpected value 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["serve"], ["run", "--command", "true"], ["kept", "ls"], ["tools", "ls"]])
@pytest.mark.parametrize("text", ["[[", "[node]\nmachines = 0\n", '[[node.allow]]\nto = "169.254.169.254"\n'])
def test_settings_with_mistakes_end_every_verb_with_two(words, text, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.toml").write_text(text)
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["firebrick", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == USAGE
    assert "config.toml" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_several_at_once_are_each_told(capsys):
    assert report(ExceptionGroup("both", [NodeError("one"), OSError(28, "No space left on device")])) == FAILURE
    assert capsys.readouterr().err == "error: one\nerror: [Errno 28] No space left on device\n"


def test_a_mistake_of_our_own_is_called_that(capsys, monkeypatch):
    monkeypatch.delenv("FIREBRICK_DEBUG", raising=False)
    assert report(KeyError("x")) == FAILURE
    err = capsys.readouterr().err
    assert "a mistake of its own: KeyError: 'x'" in err
    assert "Traceback" not in err
    monkeypatch.setenv("FIREBRICK_DEBUG", "1")
    report(KeyError("x"))
    assert "KeyError: 'x'\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_can_be_loaded(name):
    assert VERBS[name].load(name).name == name


def test_secrets_by_value_and_by_variable(monkeypatch):
    monkeypatch.setenv("TOKEN", "from outside")
    assert read_secrets(["A=b=c", "TOKEN"]) == {"A": "b=c", "TOKEN": "from outside"}
    with pytest.raises(UsageError, match="no variable NONE"):
        read_secrets(["NONE"])
    with pytest.raises(UsageError, match="--secret =x names no secret"):
        read_secrets(["=x"])


def test_what_an_error_quotes_neither_moves_the_cursor_nor_looks_like_another(capsys):
    report(NodeError("no file \x1b]0;PWN\x07a\nerror: forged", hint="x\x9b2J\nhint: forged"))
    assert capsys.readouterr().err == "error: no file a\n       error: forged\nhint:  x\n       hint: forged\n"
