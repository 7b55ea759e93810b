import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.workflow.command import masker as masker_module
from firebrick.workflow.command.masker import Masker, MaskLimitError, derived_forms

SECRET = "p@ss w&rd'\"<é>"


def test_values_and_what_touches():
    masker = Masker(["abc", "cde", "xyz"])
    assert masker.mask("abc") == "***"
    assert masker.mask("1abc2xyz3") == "1***2***3"
    assert masker.mask("abcde") == "***"
    assert masker.mask("abcxyz") == "***"
    assert masker.mask("abd") == "abd"
    assert masker.mask("") == ""


def test_nothing_to_mask():
    masker = Masker(["", "  ", "\n"])
    assert not masker
    assert masker.mask("text") == "text"


def test_a_longer_secret_wins_over_its_part():
    assert Masker(["secret", "secret-longer"]).mask("is secret-longer!") == "is ***!"


def test_added_later():
    masker = Masker(["one"])
    assert masker.mask("one two") == "*** two"
    masker.add("two")
    assert masker.mask("one two") == "*** ***"


def test_several_lines_are_masked_line_by_line():
    masker = Masker(["-----BEGIN-----\r\n  abcdef  \nghijkl\n"])
    assert [masker.mask(line) for line in ("x -----BEGIN-----", "abcdef", "ghijkl.", "other")] == [
        "x ***",
        "***",
        "***.",
        "other",
    ]
    assert masker.mask("-----BEGIN-----\nghijkl") == "***\n***"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.replace('"', '\\"'),
        SECRET.replace("'", "''"),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET, safe=""),
        SECRET.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        "p@ss w",
        "rd'\"<é>",
    ],
)
def test_derived_forms(form):
    assert Masker([SECRET]).mask(f"before {form} after") == "before *** after"


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_text_with_the_secret_in_it(before, after, encode):
    secret = "sup3r-s3cret?>~\xff-value"
    data = b"<" * before + secret.encode() + b">" * after
    masked = Masker([secret]).mask(encode(data).decode())
    assert "***" in masked
    # What is left cannot hold more than the edges: two groups at each side.
    assert len(masked.replace("***", "")) <= (before + 2) // 3 * 4 + (after + 2) // 3 * 4 + 8


def test_quotes_around_a_secret():
    assert Masker(['"quoted-value"']).mask("quoted-value") == "***"


def test_surrogates_do_not_break_it():
    masker = Masker(["abc"])
    assert masker.mask("x abc é \N{PILE OF POO} abc") == "x *** é \N{PILE OF POO} ***"


def test_hundred_secrets():
    secrets = [f"tok_{number:03d}_{'abcdefghij'[number % 10] * 20}" for number in range(100)]
    masker = Masker(secrets)
    line = "   Compiling serde_json v1.0.117 (/home/runner/.cargo/registry/src/index-1ecc6299db9ec823)"
    assert masker.mask(line) == line
    assert masker.mask(f"{line} {secrets[42]}") == f"{line} ***"


def test_halves_of_surrogate_pairs_neither_stop_it_nor_hide_anything():
    masker = Masker(["secret\ud800half"])
    assert masker.mask("a\ud800 secret\ud800half") == "a\ufffd ***"
    masker.add("other\udfff")
    assert masker.mask("other\udfff.") == "***."


def test_many_additions_between_lines_build_little(monkeypatch):
    built = []
    real = masker_module.AhoCorasick
    monkeypatch.setattr(
        masker_module, "AhoCorasick", lambda forms, *a, **k: built.append(len(forms)) or real(forms, *a, **k)
    )
    masker = Masker(["from-the-start"])
    words = [f"value-{number:05}-{number * 7919:08x}" for number in range(1000)]
    for word in words:
        masker.add(word)
        assert masker.mask(f"<{word}>") == "<***>"
    assert masker.mask(" ".join(words)) == " ".join(["***"] * 1000)
    forms = len({form for word in words for form in derived_forms(word)})
    assert sum(built) < 12 * forms
    assert len(masker._tiers) <= 12


def test_too_many_additions_blind_it():
    masker = Masker(["outside"] * 3, most=2)
    masker.add("first")
    masker.add("second")
    masker.add("second")
    assert masker.mask("first, third") == "***, third"
    with pytest.raises(MaskLimitError, match="2 values"):
        masker.add("third")
    assert masker.mask("the third") == "***"
    assert masker.mask("") == ""
    assert masker


def test_lines_and_bytes_count_too():
    with pytest.raises(MaskLimitError):
        Masker(most=3).add("a\nb\nc")
    with pytest.raises(MaskLimitError):
        Masker(most_bytes=9).add("\N{GRINNING FACE}" * 3)
    Masker(["x" * 100, "y"], most=0, most_bytes=0)


@pytest.mark.parametrize("lengths", [range(1, 200), range(199, 0, -1)])
def test_values_that_are_the_end_of_each_other_do_not_multiply(lengths):
    masker = Masker()
    with pytest.raises(MaskLimitError, match="each the end of the next"):
        for length in lengths:
            masker.add("a" * length)
    assert masker.mask("b" * 60_000) == "***"


def test_some_values_that_are_the_end_of_each_other_are_fine():
    masker = Masker()
    for value in ("pass", "me:pass", "//me:pass", "https://me:pass", "xhttps://me:pass", "b", "ab", "cab"):
        masker.add(value)
    assert masker.mask("https://me:pass me:pass cab") == "*** *** ***"


@given(
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=6), max_size=4),
    st.lists(st.text(alphabet="abc", max_size=8), min_size=1, max_size=6),
)
def test_lines_together_are_masked_as_each_alone(values, lines):
    masker = Masker(values)
    assert masker.mask_lines(lines) == [masker.mask(line) for line in lines]


def test_lines_of_a_masker_that_saw_too_much():
    masker = Masker(most=1)
    with pytest.raises(MaskLimitError):
        masker.add("one\ntwo")
    assert masker.mask_lines(["a", ""]) == ["***", ""]
