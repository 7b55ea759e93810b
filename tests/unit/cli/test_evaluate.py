"""`firebrick workflow eval`."""

import json

from typer.testing import CliRunner

from firebrick.cli import evaluate
from firebrick.cli.errors import UsageError
from firebrick.cli.workflow import app


def ask(*arguments: str, stdin: str | bytes = ""):
    result = CliRunner().invoke(app, ["eval", *arguments], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        return result.exception
    return result.exit_code, [json.loads(line) for line in result.output.splitlines()]


def test_a_line_for_each_expression():
    assert ask("1 == 1", "-1", "'a'") == (
        0,
        [{"kind": "Boolean", "value": True}, {"kind": "Number", "value": -1}, {"kind": "String", "value": "a"}],
    )


def test_an_error_is_an_answer_and_a_status():
    status, [first, second, third] = ask("1", "(", "fromJSON('')")
    assert status == 1
    assert first == {"kind": "Number", "value": 1}
    assert [each["error"]["kind"] for each in (second, third)] == ["parsing", "evaluation"]


def test_contexts_from_a_file(tmp_path):
    file = tmp_path / "contexts.json"
    file.write_text('{"github": {"ref": "refs/heads/main"}, "mine": [1]}')
    assert ask("--contexts", str(file), "github.ref", "mine") == (
        0,
        [{"kind": "String", "value": "refs/heads/main"}, {"kind": "Array", "value": [1]}],
    )


def test_contexts_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "MAX_INPUT", 100)
    for content in (b"[]", b"{", b"\xff", b" " * 101):
        file = tmp_path / "contexts.json"
        file.write_bytes(content)
        assert isinstance(error := ask("--contexts", str(file), "1"), UsageError)
        assert str(error).startswith(f"cannot take contexts from {file}: ")
        assert "codec" not in str(error)
    assert "No such file" in str(ask("--contexts", str(tmp_path / "none"), "1"))


def test_nothing_asked_or_twice():
    assert str(ask()) == "there is no expression to evaluate"
    assert str(ask("--batch", "1")) == "expressions and --batch are both given"


def test_batch(tmp_path):
    file = tmp_path / "contexts.json"
    file.write_text('{"foo": 1, "bar": 2}')
    lines = ['{"expr": "foo", "contexts": {"foo": "own"}}', "", '{"expr": "bar"}', '{"expr": "("}', '{"expr": ""}']
    status, answers = ask("--batch", "--contexts", str(file), stdin="\n".join(lines))
    assert status == 0
    assert [answer.get("value", "error") for answer in answers] == ["own", 2, "error", None]


def test_a_line_that_is_no_question_has_an_answer_all_the_same(monkeypatch):
    monkeypatch.setattr(evaluate, "MAX_INPUT", 100)
    bad = [
        b"x",
        b"[]",
        b'{"expr": 1}',
        b'{"expr": "1", "contexts": []}',
        b'{"expr": "1", "contexts": [1]}',
        b"\xff",
        b" " * 350,
    ]
    status, answers = ask("--batch", stdin=b"\n".join([*bad, b'{"expr": "2"}']))
    assert status == 2
    assert [answer.get("error", {}).get("kind") for answer in answers] == ["input"] * 7 + [None]
    assert "more than 100 bytes" in answers[-2]["error"]["message"]
