"""What makes a snapshot fit, and the sentences that say why one does not."""

import os
from pathlib import Path

import msgspec
import pytest

from firebrick.machine import Drive, MachineSpec, Network, Snapshot, SnapshotError
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
    with snapshots.created(path, spec, "qemu", FACTS) as draft:
        (draft / "state").write_bytes(b"devices")
        with (draft / "memory").open("wb") as f:
            f.truncate(8 << 20)
    return Snapshot.load(path)


def test_a_snapshot_is_read_as_it_was_written(taken, spec):
    assert taken.spec == spec
    assert taken.driver == "qemu"
    assert taken.facts == FACTS
    taken.check_facts(FACTS)


def test_small_parts_are_known_by_their_digest_large_ones_by_their_size(taken):
    files = msgspec.json.decode((taken.path / snapshots.FILE).read_bytes())["files"]
    assert set(files["state"]) == {"size", "sha256"}
    assert files["memory"] == {"size": 8 << 20}


def test_nothing_is_kept_of_a_snapshot_that_failed(tmp_path, spec):
    with pytest.raises(RuntimeError), snapshots.created(tmp_path / "snap", spec, "qemu", FACTS) as draft:
        (draft / "state").write_bytes(b"half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["root.squashfs"]


def test_a_directory_in_use_is_not_overwritten(taken, spec):
    with (
        pytest.raises(SnapshotError, match="cannot keep the snapshot"),
        snapshots.created(taken.path, spec, "qemu", FACTS) as draft,
    ):
        (draft / "state").write_bytes(b"other")
    assert (taken.path / "state").read_bytes() == b"devices"


def test_no_snapshot_there(tmp_path):
    with pytest.raises(SnapshotError, match="no snapshot is there"):
        Snapshot.load(tmp_path)


def test_a_damaged_record(taken):
    (taken.path / snapshots.FILE).write_text("{")
    with pytest.raises(SnapshotError, match="damaged"):
        Snapshot.load(taken.path)


def test_a_changed_part(taken):
    (taken.path / "state").write_bytes(b"DEVICES")
    with pytest.raises(SnapshotError, match="state was changed"):
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
        Snapshot.load(taken.path)


def test_no_root_image(taken, spec):
    spec.root.unlink()
    with pytest.raises(SnapshotError, match="root image .*: No such file"):
        Snapshot.load(taken.path)


def test_another_version_of_the_record(taken):
    file = taken.path / snapshots.FILE
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | {"version": 99}))
    with pytest.raises(SnapshotError, match="version 99, this release reads version 1"):
        Snapshot.load(taken.path)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"QEMU": "9.1", "accelerator": "tcg"}, "taken with QEMU 7.2, and this is 9.1"),
        ({"QEMU": "7.2", "accelerator": "kvm"}, "taken with accelerator tcg, and this is kvm"),
        ({"QEMU": "7.2"}, "taken with accelerator tcg, and this is nothing"),
    ],
)
def test_a_host_that_does_not_fit_is_said(taken, now, sentence):
    with pytest.raises(SnapshotError, match=sentence):
        taken.check_facts(now)
