"""From text to instructions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import read_dockerfile
from firebrick.dockerfile.reader import MAX_BYTES, read_instructions
from firebrick.dockerfile.work import Config, work_of


def read(text: str) -> list[tuple[int, str, str]]:
    return [(each.line, each.keyword, each.text) for each in read_instructions(text.encode())[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# a comment\n\n  # another\n", []),
        ("from x\r\nRun  a  b \n", [(1, "FROM", "x"), (2, "RUN", "a  b")]),
        ("RUN a \\\n  b \\  \n\n# between\n  c\nRUN d", [(1, "RUN", "a   b   c"), (6, "RUN", "d")]),
        ("RUN a \\\n", [(1, "RUN", "a")]),
        ("# escape=`\nRUN a `\n c:\\\n", [(2, "RUN", "a  c:\\")]),
        ("\ufeff# syntax=x/y:1\n# Escape = `\nRUN a `\nb", [(3, "RUN", "a b")]),
        ("# no directive\n# escape=`\nRUN a `\nRUN b", [(3, "RUN", "a `"), (4, "RUN", "b")]),
        ("CMD --help", [(1, "CMD", "--help")]),
        ("RUN echo $((1<<2)) <<<x", [(1, "RUN", "echo $((1<<2)) <<<x")]),
    ],
)
def test_lines(text: str, expected: list[tuple[int, str, str]]) -> None:
    assert read(text) == expected


def test_flags() -> None:
    [instruction], _ = read_instructions(b"COPY --from=a --link --chown=1:2 -x --late y z")
    assert instruction.flags == (("from", "a"), ("link", ""), ("chown", "1:2"))
    assert instruction.text == "-x --late y z"


def test_here_documents() -> None:
    text = "RUN cat <<A <<-'B'\n$x\n  A\nA\n\ty\n\tB\nRUN next\n"
    instruction, following = read_instructions(text.encode())[0]
    first, second = instruction.heredocs
    assert (first.name, first.content, first.expands, first.source) == ("A", "$x\n  A\n", True, "$x\n  A\nA")
    assert (second.name, second.content, second.expands, second.source) == ("B", "y\n", False, "\ty\n\tB")
    assert (following.line, following.text) == (7, "next")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ('["a", "b \\" c"]', ("a", 'b " c')),
        ("[]", ()),
        ("['a']", None),
        ('["a", 1]', None),
        ("[" * 100_000, None),
        ('["a"] b', None),
        ("a", None),
    ],
)
def test_lists(text: str, listed: tuple[str, ...] | None) -> None:
    [instruction], _ = read_instructions(f"CMD {text}".encode())
    assert instruction.listed == listed


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"x" * (MAX_BYTES + 1), 0, "more than 256 KiB"),
        (b"\xff", 0, "no text in UTF-8"),
        (b"RUN \0", 0, "NUL"),
        (b"RUN a\n=", 2, "no instruction"),
        (b"RUN=a", 1, "no instruction"),
        (b"RUN <<E\nx", 1, "the here-document E has no end"),
        (b"# escape=x\nRUN a", 1, "neither"),
        (b"RUN a\n" * 1001, 1001, "more than 1000 instructions"),
        (b"RUN " + b"<<E " * 17, 1, "more than 16 here-documents"),
    ],
)
def test_what_is_no_dockerfile(content: bytes, line: int, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as caught:
        read_instructions(content)
    assert caught.value.line == line


_PIECES = st.sampled_from(
    ["FROM a", "AS b", "FROM", "RUN", "COPY", "--from=b", "ENV A=$B", "ARG", "<<E", "E", "\n", " ", "\\", "\\\n", "$", "${A:-", "}", "'", '"', "[", "]", "#", "x", "ADD", "*", "WORKDIR", "/", "..", "USER", "CMD", '["a"]', "=", "\t", "é", "ONBUILD"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    error = None
    try:
        file = read_dockerfile(text.encode(), platform="linux/amd64")
        works = [work_of(file, number, Config()) for number in range(len(file.stages))]
        assert all(len(work.shown) == len(work.operations) for work in works)
    except DockerfileError as raised:
        error = raised
    assert error is None or (str(error) and 0 <= error.line <= text.count("\n") + 1)
