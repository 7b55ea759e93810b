"""Guest output becomes lines that are bounded and valid text, however it arrives."""

from hypothesis import given
from hypothesis import strategies as st

from firebrick.node.lines import CONTINUED, LineSplitter
from firebrick.workflow.command.masker import Masker


def split(data: bytes, *, limit: int = 64 << 10, piece: int = 1 << 20, masker: Masker | None = None) -> list[str]:
    splitter = LineSplitter(limit, masker)
    lines = []
    for at in range(0, len(data), piece):
        lines += splitter.feed(data[at : at + piece])
    return lines + list(splitter.end())


def test_lines_without_their_newlines():
    assert split(b"one\ntwo\n\nthree") == ["one", "two", "", "three"]


def test_a_carriage_return_before_the_newline_goes():
    assert split(b"one\r\ntwo\r\n") == ["one", "two"]


def test_a_newline_at_the_end_makes_no_empty_line():
    assert split(b"one\n") == ["one"]


def test_what_is_no_utf8_is_replaced():
    assert split(b"a\xff\xfeb\nc\0d\n") == ["a\ufffd\ufffdb", "c\ufffdd"]


def test_a_line_over_the_limit_comes_in_pieces_that_say_so():
    assert split(b"abcdefgh\n", limit=3) == ["abc" + CONTINUED, "def" + CONTINUED, "gh"]


def test_a_piece_is_not_cut_inside_a_character():
    assert split("aaé\n".encode(), limit=3) == ["aa" + CONTINUED, "é"]


def test_a_flood_without_newline_is_not_held():
    splitter = LineSplitter(100)
    pieces = [piece for _ in range(1000) for piece in splitter.feed(b"x" * 77)]
    assert len(pieces) >= 769
    assert sum(len(text) for text in splitter.end()) <= 100


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 64))
def test_the_pieces_in_which_it_arrives_make_no_difference(data, piece, limit):
    assert split(data, limit=limit, piece=piece) == split(data, limit=limit)


@given(
    st.text(alphabet=st.characters(blacklist_characters="\r\0", blacklist_categories=["Cs"]), max_size=200),
    st.integers(4, 50),
)
def test_nothing_of_valid_text_is_lost(text, limit):
    whole = "".join(line.removesuffix(CONTINUED) for line in split(text.encode(), limit=limit))
    assert whole == text.replace("\n", "")


@given(st.integers(0, 40), st.integers(4, 60), st.integers(1, 30))
def test_a_secret_is_never_cut(before, limit, piece):
    masker = Masker(["hunter2-long"])
    data = b"x" * before + b"hunter2-long" + b"y" * 80 + b"\nhunter2-long\n"
    lines = split(data, limit=limit, piece=piece, masker=masker)
    assert lines == split(data, limit=limit, masker=masker)
    shown = [masker.mask(line) for line in lines]
    assert shown.count("***") <= 2
    assert "".join(line.removesuffix(CONTINUED) for line in shown) == "x" * before + "***" + "y" * 80 + "***"


def test_a_line_of_nothing_but_secrets_is_not_held():
    masker = Masker(["aaaa"])
    splitter = LineSplitter(100, masker)
    pieces = [piece for _ in range(1000) for piece in splitter.feed(b"a" * 77)]
    pieces += splitter.end()
    assert {masker.mask(piece).removesuffix(CONTINUED) for piece in pieces} == {"***"}
    assert len(pieces) > 100
