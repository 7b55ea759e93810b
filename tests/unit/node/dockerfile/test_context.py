"""The files beside a Dockerfile: what is chosen of them, and that nothing leads out of them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from firebrick.dockerfile.pattern import Ignored
from firebrick.node.dockerfile.archive import is_archive, unpacked
from firebrick.node.dockerfile.context import Context, ContextError, File


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    (root / "dir/in").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b")
    (root / "dir/in/file").write_text("file")
    (root / "dir/run").write_text("run")
    (root / "dir/run").chmod(0o700)
    (root / "dir.d").mkdir()
    (root / "inner").symlink_to("dir/in")
    (root / "dir/up").symlink_to("../a.txt")
    (root / "out").symlink_to("../outside")
    (root / "far").symlink_to("/etc")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


def paths(context: Context, *sources: str) -> list[list[str]]:
    return [[chosen.name, *(file.path for file in chosen.files)] for chosen in context.choose(sources)]


def test_what_is_chosen(root: Path) -> None:
    context = Context(root)
    assert paths(context, "a.txt") == [["a.txt", ""]]
    assert paths(context, "*.txt") == [["a.txt", ""], ["b.txt", ""]]
    assert [chosen[0] for chosen in paths(context, "[a-c]*", "d*")] == ["a.txt", "b.txt", "dir", "dir.d"]
    assert "" not in [chosen[0] for chosen in paths(context, "*.*")]
    assert paths(context, "dir") == [["dir", "", "in", "in/file", "run", "up"]]
    assert paths(context, "inner") == [["inner", "", "file"]]
    assert paths(context, "inner/file", "dir/up") == [["file", ""], ["up", ""]]
    [chosen] = context.choose(["dir/up"])
    assert b"".join(chosen.files[0].content()) == b"a"
    [whole] = context.choose(["."])
    links = {file.path: file.link for file in whole.files if file.kind == "symlink"}
    assert links == {"inner": "dir/in", "dir/up": "../a.txt", "out": "../outside", "far": "/etc", "loop": "loop"}
    assert "fifo" not in [file.path for file in whole.files]


def test_modes_are_those_git_knows_or_what_they_are(root: Path) -> None:
    (root / "a.txt").chmod(0o600)
    for plain, modes in ((True, (0o644, 0o755)), (False, (0o600, 0o700))):
        one, other = Context(root, plain=plain).choose(["a.txt", "dir/run"])
        assert (one.files[0].mode, other.files[0].mode) == modes


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing", "no file 'missing'"),
        ("a.txt/x", "no file"),
        ("*.none", "no file"),
        ("out", "leads out"),
        ("far", "leads out"),
        ("far/passwd", "leads out"),
        ("inner/../../outside", "no file"),
        ("dir/../../outside", "leads out"),
        ("loop", "a circle"),
        ("fifo", "no file"),
        ("[", "without its ]"),
        ("*", "leads out"),
    ],
)
def test_what_cannot_be_chosen(root: Path, source: str, reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        Context(root).choose([source])


def test_what_is_ignored_is_not_there(root: Path) -> None:
    context = Context(root, ignored=Ignored("*\n!dir/in\n!a.txt\n"))
    assert paths(context, ".") == [["", "", "a.txt", "dir", "dir/in", "dir/in/file"]]
    with pytest.raises(ContextError):
        context.choose(["b.txt"])


def test_the_digest_is_of_names_modes_and_contents(root: Path) -> None:
    def digest(*sources: str) -> str:
        context = Context(root)
        return context.digest(context.choose(sources))

    first = digest("dir")
    (root / "a.txt").write_text("other")
    assert digest("dir") == first, "a link is what it says"
    assert digest("dir", "a.txt") != first
    (root / "dir/in/file").write_text("more")
    second = digest("dir")
    (root / "dir/run").chmod(0o600)
    third = digest("dir")
    (root / "dir/in/file").rename(root / "dir/in/name")
    assert len({first, second, third, digest("dir")}) == 4


def test_a_context_has_its_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firebrick.node.dockerfile.context._MOST_ENTRIES", 3)
    with pytest.raises(ContextError, match="more than 3 files"):
        Context(root)
    assert paths(Context(root, ignored=Ignored("*")), ".") == [["", ""]], "what is left out is not looked through"
    monkeypatch.undo()
    context = Context(root)
    monkeypatch.setattr("firebrick.node.dockerfile.context._MOST_CHOSEN", 20)
    with pytest.raises(ContextError, match="more than 20 files"):
        context.choose(["dir"] * 5)


def test_names_are_compared_so_often_and_no_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Ignored("\n".join(f"*{number}" for number in range(10)))
    monkeypatch.setattr("firebrick.node.dockerfile.context._MOST_COMPARED", 150)
    context = Context(root, ignored=lines)
    for _ in range(9):
        context.choose(["*.txt"])
    with pytest.raises(ContextError, match="too many files for them"):
        for _ in range(9):
            context.choose(["*.txt"])
    for number in range(10):
        (root / f"ignored{number}").touch()
    with pytest.raises(ContextError, match="too many files for so many lines"):
        Context(root, ignored=lines)


def test_a_name_that_is_no_text_is_told(root: Path) -> None:
    (root / os.fsdecode(b"\xff")).write_text("")
    with pytest.raises(ContextError, match="no text"):
        Context(root)
    [whole] = Context(root, plain=False).choose(["."])
    assert os.fsdecode(b"\xff") in [file.path for file in whole.files], "a stage may have such names"


# --- archives ---


def tape(text: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("x")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


def as_file(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return File("", "file", 0o644, path, len(content))


@pytest.mark.parametrize("packed", [bytes, gzip.compress, lzma.compress])
def test_an_archive_is_known_by_what_is_in_it(tmp_path: Path, packed: type[bytes]) -> None:
    raw = tape(b"word" * 50_000)
    file = as_file(tmp_path / "x", packed(raw))
    assert is_archive(file)
    assert b"".join(unpacked(file, len(raw))) == raw
    with pytest.raises(ContextError, match="more than 0 MiB"):
        list(unpacked(file, len(raw) - 1))


@pytest.mark.parametrize(
    "content",
    [b"", b"text" * 200, gzip.compress(b"text" * 200, mtime=0), b"\x1f\x8b\0", lzma.compress(b"x")[:20]],
    ids=["empty", "text", "gzip", "the start of gzip", "the start of xz"],
)
def test_other_files_are_none(tmp_path: Path, content: bytes) -> None:
    assert not is_archive(as_file(tmp_path / "x", content))


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    for packed in (gzip.compress, lzma.compress):
        file = as_file(tmp_path / "x", packed(tape(os.urandom(90_000)))[:-40_000])
        with pytest.raises(ContextError, match="damaged"):
            list(unpacked(file, 1 << 30))
