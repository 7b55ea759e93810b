"""What of artifacts is bounded."""

import zipfile

import pytest

from firebrick.node.errors import StepError
from firebrick.node.glob import Found
from firebrick.node.results.shelf import ArtifactShelf


async def test_the_number_of_files_of_a_run_is_bounded(tmp_path):
    shelf = ArtifactShelf(tmp_path, lambda _: None, limit=1 << 20, most_files=3)
    stored = []

    async def fetch(job, name, files, source, relative):
        stored.append(relative)
        return 0

    shelf._fetch = fetch
    found = [Found(f"/w/{name}", 0) for name in "ab"]
    await shelf.store("job", "one", None, found, root="/w")
    with pytest.raises(StepError, match="more than 3 files"):
        await shelf.store("job", "two", None, found, root="/w")
    await shelf.store("job", "three", None, found[:1], root="/w")
    assert stored == ["one/a", "one/b", "three/a"]


async def test_directories_count_as_files_do(tmp_path):
    def archive(name, *paths):
        with zipfile.ZipFile(tmp_path / name, "w") as made:
            for path in paths:
                made.writestr(path, b"")
        return tmp_path / name

    shelf = ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=1 << 20, most_files=8)
    await shelf.unpack("job", "flat", archive("flat.zip", "d/a", "d/b", "d/e/c"), archive=True)
    with pytest.raises(StepError, match="more than 8 files and directories"):
        await shelf.unpack("job", "deep", archive("deep.zip", "a/b/c/f"), archive=True)
    await shelf.unpack("job", "rest", archive("rest.zip", "a/b/f"), archive=True)
    assert set(shelf.names) == {"flat", "rest"}


async def test_a_tree_too_deep_to_be_removed_again_is_not_stored(tmp_path):
    shelf = ArtifactShelf(tmp_path, lambda _: None, limit=1 << 20)
    deep = "/w/" + "d/" * 201 + "f"
    with pytest.raises(StepError, match="cannot be kept"):
        await shelf.store("job", "deep", None, [Found(deep, 0)], root="/w")
    assert list(tmp_path.rglob("*")) == []


async def test_what_is_collected_of_a_job_and_an_artifact_of_its_name_do_not_meet(tmp_path):
    shelf = ArtifactShelf(tmp_path, lambda _: None, limit=1 << 20)
    stored = []

    async def fetch(job, name, files, source, relative):
        stored.append((name, relative))
        return 0

    shelf._fetch = fetch
    found = [Found("/w/a", 0)]
    await shelf.store("build", "build", None, found, root="/w")
    await shelf.collect("build", None, found, root="/w")
    await shelf.collect("test (a/b:1)", None, found, root="/w")
    await shelf.store("x", "test (a_b_1)", None, found, root="/w")
    await shelf.store("x", "build", None, found, root="/w", overwrite=True)
    assert stored == [
        ("build", "build/a"),
        ("build", "build-2/a"),
        ("test (a/b:1)", "test (a_b_1)/a"),
        ("test (a_b_1)", "test (a_b_1)-2/a"),
        ("build", "build/a"),
    ]


async def test_a_job_may_upload_under_its_own_name_what_is_collected_too(bed):
    told = await bed.run(
        "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: echo x >> made\n"
        "      - uses: actions/upload-artifact@v4\n        with: {name: build, path: made}\n",
        collect=("made",),
    )
    assert told.result.conclusion == "success"
    assert [(e.name, e.path) for e in told.artifacts()] == [("build", "build/made"), ("build", "build-2/made")]


UPLOADS = """
on: push
jobs:
  make:
    runs-on: base
    steps:
      - run: |
          echo one >> a/one
          echo two >> b/two
      - uses: actions/upload-artifact@v4
        with: {name: first, path: a}
      - uses: actions/upload-artifact@v4
        with: {name: second, path: b}
  use:
    needs: make
    runs-on: base
    steps:
"""


async def test_artifacts_of_a_run_can_be_had_by_later_jobs(bed):
    told = await bed.run(
        UPLOADS
        + """
      - id: one
        uses: actions/download-artifact@v4
        with: {name: first, path: got}
      - uses: actions/download-artifact@v4
      - uses: actions/download-artifact@v4
        with: {pattern: 's*', path: all, merge-multiple: true}
      - run: echo ${{ steps.one.outputs.download-path }} ${{ hashFiles('got/one') != '' && hashFiles('second/two') == hashFiles('all/two') }}
      - uses: actions/download-artifact@v4
        with: {name: third}
      - if: always()
        uses: actions/download-artifact@v4
        with: {path: ../../../etc}
"""
    )
    assert told.steps("use") == ["success", "success", "success", "success", "failure", "failure"]
    said = told.lines("use")
    assert "/home/runner/work/hello/hello/got true" in said
    assert any("Artifact not found for name: third. There are first, second." in line for line in said)
    assert any("it is not below the workspace" in line for line in said)


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def test_what_a_client_uploads_is_on_the_shelf_as_files(tmp_path):
    events = []
    shelf = ArtifactShelf(tmp_path / "shelf", events.append, limit=1 << 20)
    await shelf.unpack("build", "logs", zipped(tmp_path / "a", {"x/1": b"one", "2": b"two"}), archive=True)
    (tmp_path / "b").write_bytes(b"plain")
    await shelf.unpack("build", "report.txt", tmp_path / "b", archive=False)
    assert read(tmp_path / "shelf") == {"logs/x/1": b"one", "logs/2": b"two", "report.txt/report.txt": b"plain"}
    assert [(event.name, event.path, event.size) for event in events] == [
        ("logs", "logs/x/1", 3),
        ("logs", "logs/2", 3),
        ("report.txt", "report.txt/report.txt", 5),
    ]
    assert shelf.stored() == [], "clients know of it already"
    with pytest.raises(StepError, match="already there"):
        await shelf.unpack("test", "logs", tmp_path / "a", archive=True)
    await shelf.remove("logs")
    await shelf.unpack("test", "logs", zipped(tmp_path / "c", {"3": b"three"}), archive=True)
    assert read(tmp_path / "shelf/logs") == {"3": b"three"}


async def test_an_upload_that_is_too_much_or_broken_leaves_nothing(tmp_path):
    shelf = ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=100, most_files=3)
    with pytest.raises(StepError, match="more than"):
        await shelf.unpack("build", "large", zipped(tmp_path / "a", {"a": b"x" * 101}), archive=True)
    shelf = ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=100, most_files=3)
    with pytest.raises(StepError, match="3 files"):
        await shelf.unpack("build", "many", zipped(tmp_path / "a", dict.fromkeys("abcd", b"")), archive=True)
    broken = zipped(tmp_path / "a", {"a": b"hello"})
    broken.write_bytes(broken.read_bytes().replace(b"hello", b"hullo"))
    with pytest.raises(StepError, match="no zip"):
        await shelf.unpack("build", "broken", broken, archive=True)
    assert read(tmp_path) == {"a": broken.read_bytes()}
    await shelf.unpack("build", "broken", zipped(tmp_path / "a", {"a": b"hello"}), archive=True)


async def test_what_steps_store_has_a_new_version_each_time(tmp_path):
    shelf = ArtifactShelf(tmp_path, lambda _: None, limit=1 << 20)

    async def fetch(job, name, files, source, relative):
        return 0

    shelf._fetch = fetch
    await shelf.store("job", "n", None, [Found("/w/a", 0)], root="/w")
    [first] = shelf.stored()
    await shelf.store("job", "n", None, [Found("/w/a", 0)], root="/w", overwrite=True)
    [second] = shelf.stored()
    await shelf.remove("n")
    assert shelf.stored() == []
    await shelf.store("job", "n", None, [Found("/w/a", 0)], root="/w")
    [third] = shelf.stored()
    assert first.version < second.version < third.version


async def test_an_input_that_is_none_is_warned_of(bed):
    told = await bed.run(
        "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: echo x >> made\n"
        "      - uses: actions/upload-artifact@v4\n        with: {Name: build, path: made, retention-day: 1, archive: false}\n"
    )
    assert told.result.conclusion == "success"
    [warning] = [line for line in told.lines(step=1) if line.startswith("##[warning]")]
    assert warning.startswith("##[warning]Unexpected input(s) 'retention-day', valid inputs are ['name', 'path', ")
