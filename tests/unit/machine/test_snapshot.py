"""What makes a snapshot fit, and the sentences that say why one does not."""

import os
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from firebrick.machine import Drive, MachineSpec, Network, Snapshot, SnapshotError, manifest
from firebrick.machine import snapshot as snapshots

FACTS = {"QEMU": "7.2", "accelerator": "tcg"}


@pytest.fixture
def spec(tmp_path) -> MachineSpec:
    root = tmp_path / "root.squashfs"
    root.write_bytes(b"root")
    drives = (Drive(name="data", path=Path("/d"), format="qcow2"),)
    return MachineSpec(
        kernel=Path("/k"), initrd=Path("/i"), root=root, drives=drives, network=Network.USER, labels={"a": "b"}
    )


@pytest.fixture
def taken(tmp_path, spec) -> Snapshot:
    path = tmp_path / "snap"
    with snapshots.drafted(path) as draft:
        (draft.path / "state").write_bytes(b"devices")
        with (draft.path / "memory").open("wb") as f:
            f.truncate(8 << 20)
        draft.keep(spec, "qemu", FACTS)
    return Snapshot.load(path)


def test_a_snapshot_is_read_as_it_was_written(taken, spec):
    assert taken.spec == spec
    assert taken.driver == "qemu"
    assert taken.facts == FACTS
    taken.check(FACTS)


def test_every_part_is_known_by_its_digest(taken):
    files = msgspec.json.decode((taken.path / snapshots.FILE).read_bytes())["files"]
    assert set(files) == {"state", "memory"}
    assert all(set(part) == {"size", "digest"} for part in files.values())


def test_nothing_is_kept_of_a_snapshot_that_failed(tmp_path, spec):
    with pytest.raises(RuntimeError), snapshots.drafted(tmp_path / "snap") as draft:
        (draft.path / "state").write_bytes(b"half")
        raise RuntimeError
    with pytest.raises(RuntimeError), snapshots.drafted(tmp_path / "snap") as draft:
        (draft.path / "state").write_bytes(b"whole")
        draft.keep(spec, "qemu", FACTS)
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["root.squashfs"]


def test_a_directory_in_use_is_not_overwritten(taken, spec):
    with pytest.raises(SnapshotError, match="cannot keep the snapshot"), snapshots.drafted(taken.path) as draft:
        (draft.path / "state").write_bytes(b"other")
        draft.keep(spec, "qemu", FACTS)
    assert (taken.path / "state").read_bytes() == b"devices"


def test_no_snapshot_there(tmp_path):
    with pytest.raises(SnapshotError, match="no snapshot is there"):
        Snapshot.load(tmp_path)


def test_a_damaged_record(taken):
    (taken.path / snapshots.FILE).write_text("{")
    with pytest.raises(SnapshotError, match="damaged"):
        Snapshot.load(taken.path)


@pytest.mark.parametrize("name", ["../memory", "/etc/hostname", "a/b", "..", ".", "", "memory\0"])
def test_a_part_that_is_elsewhere(taken, name):
    """Parts get their names in the directories of machines too: one that led out of there would be written outside."""
    (taken.path.parent / "memory").write_bytes(b"memory")
    record, _ = manifest.read(taken.path)
    manifest.write(taken.path, structs.replace(record, files={name: record.files["memory"]}))
    with pytest.raises(SnapshotError, match="no file of a snapshot"):
        Snapshot.load(taken.path)


def test_a_part_cut_short(taken):
    os.truncate(taken.path / "memory", 5)
    with pytest.raises(SnapshotError, match="memory was changed or cut short"):
        Snapshot.load(taken.path)


def test_a_missing_part(taken):
    (taken.path / "memory").unlink()
    with pytest.raises(SnapshotError, match="memory: No such file"):
        Snapshot.load(taken.path)


def test_another_root_image(taken, spec):
    spec.root.write_bytes(b"another")
    with pytest.raises(SnapshotError, match="root image .* was changed"):
        taken.check(FACTS)


def test_no_root_image(taken, spec):
    spec.root.unlink()
    with pytest.raises(SnapshotError, match="root image .*: No such file"):
        taken.check(FACTS)


def test_another_version_of_the_record(taken):
    file = taken.path / snapshots.FILE
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | {"version": 99}))
    with pytest.raises(SnapshotError, match="version 99, this release reads version 2"):
        Snapshot.load(taken.path)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"QEMU": "9.1", "accelerator": "tcg"}, "taken with QEMU 7.2, and this host has QEMU 9.1"),
        ({"QEMU": "7.2", "accelerator": "kvm"}, "taken with accelerator tcg, and this host has accelerator kvm"),
        ({"QEMU": "7.2"}, "taken with accelerator tcg, and this host has no accelerator"),
    ],
)
def test_a_host_that_does_not_fit_is_said(taken, now, sentence):
    with pytest.raises(SnapshotError, match=sentence):
        taken.check(now)


def test_all_that_does_not_fit_is_said_at_once(taken, spec):
    spec.root.write_bytes(b"another")
    with pytest.raises(SnapshotError) as caught:
        taken.check({"QEMU": "9.1", "processor": "max"})
    assert "taken with QEMU 7.2 and accelerator tcg and no processor" in str(caught.value)
    assert "this host has QEMU 9.1 and no accelerator and processor max" in str(caught.value)
    assert "root image" in str(caught.value)
    assert caught.value.hint
