import pytest

from firebrick.workflow.command.file import (
    FileCommandError,
    extend_path,
    file_command_failed,
    parse_environment,
    parse_pairs,
    parse_path,
    path_value,
    summary_too_large,
)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("\n\n", []),
        ("A=1", [("A", "1")]),
        ("A=1\nB=2\n", [("A", "1"), ("B", "2")]),
        ("A=\n", [("A", "")]),
        ("A=b=c", [("A", "b=c")]),
        ("A= spaced \n", [("A", " spaced ")]),
        (" A =1\n", [(" A ", "1")]),
        ("A=1\r\n", [("A", "1\r")]),
        ("A=x<<EOF\n", [("A", "x<<EOF")]),
        ("A<<EOF\nEOF\n", [("A", "")]),
        ("A<<EOF\none\ntwo\nEOF\n", [("A", "one\ntwo")]),
        ("A<<EOF\none\nEOF", [("A", "one")]),
        ("A<<EOF\n\none\n\nEOF\n", [("A", "\none\n")]),
        ("A<<EOF\nx=1\ny<<z\nEOF\nB=2\n", [("A", "x=1\ny<<z"), ("B", "2")]),
        ("A<<=\nv\n=\n", [("A", "v")]),
        ("A<<E F\nv\nE F\n", [("A", "v")]),
        ("A<<EOF\r\nv\nEOF\r\n", [("A", "v")]),
        ("A<<EOF\n EOF\nEOF\n", [("A", " EOF")]),
        ("A<<B<<C\nv\nB<<C\n", [("A", "v")]),
        ("A=1\nA=2\n", [("A", "1"), ("A", "2")]),
        ("\ufeffA=1\n", [("A", "1")]),
    ],
)
def test_pairs(text, pairs):
    assert parse_pairs(text) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word", "Invalid format 'word'"),
        ("=value", "Invalid format '=value'. Name must not be empty"),
        ("<<EOF\nx\nEOF\n", "Invalid format '<<EOF'. Name must not be empty and delimiter must not be empty"),
        ("A<<\nx\n", "Invalid format 'A<<'. Name must not be empty and delimiter must not be empty"),
        ("A<<EOF\nx\n", "Invalid value. Matching delimiter not found 'EOF'"),
        ("A<<EOF\n", "Invalid value. Matching delimiter not found 'EOF'"),
        ("A<<EOF", "Invalid value. Matching delimiter not found 'EOF'"),
        ("A<<EOF\nx", "Invalid value. EOF marker missing new line."),
        ("A<<EOF\nx\n EOF\n", "Invalid value. Matching delimiter not found 'EOF'"),
        ("A=1\nbroken\nB=2\n", "Invalid format 'broken'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(FileCommandError) as raised:
        parse_pairs(text)
    assert str(raised.value) == message


def test_environment():
    found = parse_environment("A=1\nNode_Options=--inspect\nA=2\n")
    assert found.variables == {"A": "2"}
    assert found.errors == ("Can't store NODE_OPTIONS output parameter using '$GITHUB_ENV' command.",)


def test_path():
    assert parse_path("/a\n\n/b c\n/d") == ("/a", "/b c", "/d")
    added = extend_path(extend_path((), ("/a", "/b")), ("/c", "/a"))
    assert added == ("/b", "/c", "/a")
    assert path_value(added, "/usr/bin:/bin") == "/a:/c:/b:/usr/bin:/bin"
    assert path_value((), "") == ""


def test_summary():
    assert "supports content up to a size of 1024k, got 2048k." in summary_too_large(1 << 21)


def test_message():
    assert file_command_failed("env") == "Unable to process file command 'env' successfully."
