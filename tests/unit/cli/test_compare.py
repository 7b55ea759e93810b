"""What differs in two directories of artifacts, and that made-up archives are only read so far."""

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib

import pytest

from firebrick.cli import compare as comparing
from firebrick.cli.compare import compare


@pytest.fixture
def pair(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    def write(name, one, other):
        for directory, content in ((first, one), (second, other)):
            if content is not None:
                (directory / name).parent.mkdir(exist_ok=True)
                (directory / name).write_bytes(content)
        return first, second

    return write


def tar(*members, time=0, packed=False):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), time
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=time) if packed else out.getvalue()


def zipped(*members, year=2020, level=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", level) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content, level)
    return out.getvalue()


def details(pair):
    _, differences = compare(*pair)
    return [line for each in differences for line in each.details]


def test_the_same(pair):
    pair("a/program", b"x" * 3_000_000, b"x" * 3_000_000)
    assert compare(*pair("b", b"", b"")) == (2, [])


def test_the_first_byte_that_differs(pair):
    said = details(pair("program", bytes(2_000_000) + b"\x01\x02", bytes(2_000_000) + b"\x03"))
    assert said[0] == "2000002 bytes, 2000001 in the second run"
    assert said[1] == "the first difference is at byte 2000000: 01 02 and 03"


def test_one_that_is_longer(pair):
    assert details(pair("log", b"abc", b"abcd"))[1] == "the first difference is at byte 3: its end and 64"


def test_a_file_only_one_run_has_made(pair):
    pair("a", b"x", None)
    assert details(pair("b", None, b"x")) == ["only the first run made it", "only the second run made it"]


@pytest.mark.parametrize("packed", [False, True])
def test_inside_a_tar(pair, packed):
    one = tar(("a", b"same"), ("b", b"one"), ("c", b"x"), packed=packed)
    other = tar(("a", b"same"), ("b", b"two"), ("d", b"x"), packed=packed)
    assert details(pair("x.tar", one, other))[2:] == [
        "b: its contents",
        "c: only in that of the first run",
        "d: only in that of the second run",
    ]


def test_the_times_and_the_order_in_a_tar(pair):
    said = details(pair("x.tar", tar(("a", b""), ("b", b"")), tar(("b", b""), ("a", b""), time=9)))
    assert said[2:] == ["a: time 0 and 9", "b: time 0 and 9", "the order of the files"]


def test_inside_a_zip(pair):
    said = details(pair("x.whl", zipped(("a", b"1"), ("b", b"1")), zipped(("a", b"2"), ("b", b"1"), year=2021)))
    assert said[2] == "a: time (2020, 1, 1, 0, 0, 0) and (2021, 1, 1, 0, 0, 0), its contents"
    assert said[3].startswith("b: time (2020")


def test_archives_that_are_packed_differently(pair):
    one, other = zipped(("a", b"1" * 99)), zipped(("a", b"1" * 99), level=zipfile.ZIP_DEFLATED)
    assert details(pair("x.zip", one, other))[-1] == "the files in it are the same: only how they are packed differs"
    said = details(pair("x.gz", gzip.compress(b"abc", mtime=1), gzip.compress(b"abc", mtime=2)))
    assert said[-1] == "the files in it are the same: only how they are packed differs"


@pytest.mark.parametrize(
    "broken",
    [
        b"PK\x03\x04" + bytes(50),
        b"\x1f\x8b" + bytes(50),
        tar(("a", b"x" * 2000))[:700],
        zipped(("a", b"1"))[:-4],
        gzip.compress(bytes(4000), mtime=1),
    ],
    ids=["zip of nothing", "gzip of nothing", "cut tar", "cut zip", "gzip of no tar"],
)
def test_what_is_no_whole_archive_is_said_to_be_none(pair, monkeypatch, broken):
    monkeypatch.setattr(comparing, "_MOST_BYTES", 3000)
    assert "cannot be looked into" in details(pair("x", broken, broken + b"1"))[-1]


def test_an_archive_is_read_only_so_far(pair, monkeypatch):
    bomb = zipped(("a", bytes(50_000_000)), level=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(comparing, "_MOST_BYTES", 1_000_000)
    assert "cannot be looked into" in details(pair("x.zip", bomb, bomb[:-1] + b"x"))[-1]
    members = [(f"{number}", b"") for number in range(50)]
    monkeypatch.setattr(comparing, "_MOST_MEMBERS", 10)
    assert "cannot be looked into" in details(pair("x.zip", tar(*members), tar(*members, time=1)))[-1]


def test_more_than_can_be_read_is_counted(pair):
    one, other = ([(f"{number:02}", text) for number in range(40)] for text in (b"a", b"b"))
    said = details(pair("x.tar", tar(*one), tar(*other)))
    assert len(said) == 2 + 20 + 1
    assert said[-1] == "and 20 more"


def xz(data, **options):
    return lzma.compress(data, **options)


def test_xz_is_looked_into(pair):
    one, other = tar(("a", b"1"), ("b", b"2")), tar(("a", b"1"), ("b", b"3"))
    assert details(pair("x.tar.xz", xz(one), xz(other)))[2:] == ["b: its contents"]
    assert details(pair("x.tar.xz", xz(one, preset=9), xz(one, preset=0)))[-1].startswith(
        "the files in it are the same"
    )
    several = xz(one[:700]) + bytes(8) + xz(b"") + xz(one[700:]) + bytes(4)
    assert details(pair("x.tar.xz", xz(one), several))[-1].startswith("the files in it are the same")
    assert details(pair("x.xz", xz(b"text" * 99), xz(b"TEXT" * 99)))[-1] == "what is packed: its contents"


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(lambda: xz(b"x"), id="no bomb"),
        pytest.param(lambda: _dictionary(xz(b"x" * 100), 1 << 30), id="a dictionary of a gigabyte"),
        pytest.param(lambda: xz(b"") * 1001, id="a thousand streams"),
        pytest.param(lambda: xz(bytes(range(256)) * 99)[:-40], id="no end"),
        pytest.param(lambda: b"\xfd7zXZ\0" + bytes(100), id="no xz"),
    ],
)
def test_xz_that_was_made_up_is_read_so_far(pair, hostile):
    said = details(pair("x.xz", xz(b"y"), hostile()))[-1]
    assert said == "what is packed: its contents" or said.startswith("the archive cannot be looked into")
    assert said.startswith("what is packed") == (hostile() == xz(b"x"))


def _dictionary(packed, size):
    """The same with another size of its dictionary in the header of its block, whose sum is made right."""
    code = next(code for code in range(41) if (2 | code & 1) << (code // 2 + 11) >= size)
    length = (packed[12] + 1) * 4
    block = bytearray(packed[12 : 12 + length])
    at = block.index(b"\x21\x01") + 2
    block[at] = code
    block[-4:] = zlib.crc32(block[:-4]).to_bytes(4, "little")
    return packed[:12] + bytes(block) + packed[12 + length :]


def test_the_made_up_dictionary_is_what_stops_it():
    with pytest.raises(lzma.LZMAError, match="[Mm]emory"):
        lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=128 << 20).decompress(_dictionary(xz(b"x" * 100), 1 << 30))
