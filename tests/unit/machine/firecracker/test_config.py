"""Every request the driver can make, in every version, against Firecracker's own description of its API."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.machine import Balloon, Cache, Drive, IoEngine, MachineSpec, Network, RateLimit, SpecError
from firebrick.machine.firecracker import config
from firebrick.machine.firecracker.config import Backend, Load, SnapshotType
from firebrick.machine.firecracker.version import Version
from tests.firecracker.openapi import LATER, NEWEST, OLDEST, OpenApiError, document, openapi

VERSIONS = ("1.12.0", "1.12.1", "1.13.0", "1.14.2", "1.15.1", "1.16.0", "1.16.1", "1.17.0-dev")
RATE = RateLimit(bytes_per_s=1 << 20, burst_bytes=1 << 22, operations_per_s=100)
REPORTING = Balloon(free_page_reporting=True)
TEMPLATE = {
    "kvm_capabilities": ["!56"],
    "cpuid_modifiers": [
        {"leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [{"register": "eax", "bitmap": "0bxx01"}]}
    ],
    "msr_modifiers": [{"addr": "0x10a", "bitmap": "0b0"}],
}


def spec_of(**changes) -> MachineSpec:
    return MachineSpec(**{"kernel": Path("/k"), "initrd": Path("/i"), "root": Path("/r")} | changes)


FULL = spec_of(
    vcpus=4,
    memory_mib=512,
    drives=(
        Drive(name="cache-1", path=Path("/d"), read_only=False, rate=RATE, io_engine=IoEngine.ASYNC),
        Drive(name="other", path=Path("/e"), cache=Cache.WRITEBACK),
    ),
    network=Network.NAMESPACE,
    network_rate=RATE,
    scratch_rate=RateLimit(operations_per_s=10),
    balloon=Balloon(mib=64, statistics_s=5),
    cpu_template=TEMPLATE,
    metadata={"a": {"b": "c"}},
)
SPECS = {
    "least": spec_of(root=None),
    "usual": spec_of(),
    "full": FULL,
    "huge": spec_of(huge_pages=True),
    "unlimited": spec_of(scratch_rate=RateLimit()),
}


def description(version: str):
    return openapi(version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_a_boot_is_what_firecracker_describes(version, tracked, name):
    requests = config.boot(SPECS[name], Version.parse(version), track_dirty_pages=tracked)
    for request in requests:
        description(version).check_request(request.method, request.path, request.body)
    assert requests[-1].body == {"action_type": "InstanceStart"}
    assert requests[0].body["track_dirty_pages"] is tracked


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("backend", Backend)
@pytest.mark.parametrize("tracked", [False, True])
def test_a_load_is_what_firecracker_describes(version, backend, tracked):
    load = Load(backend=backend, track_dirty_pages=tracked, taps={"eth0": "tap7"})
    request = config.load_snapshot(load, Version.parse(version))
    description(version).check_request(request.method, request.path, request.body)
    assert ("enable_diff_snapshots" in request.body) == (tracked and "1.12" in version)
    assert ("track_dirty_pages" in request.body) == (tracked and "1.12" not in version)


def test_the_oldest_refuses_what_the_newest_calls_dirty_page_tracking():
    request = config.load_snapshot(Load(track_dirty_pages=True), Version.parse("1.13.0"))
    with pytest.raises(OpenApiError, match="track_dirty_pages"):
        openapi(OLDEST).check_request(request.method, request.path, request.body)


@pytest.mark.parametrize("version", VERSIONS)
def test_requests_to_a_running_machine(version):
    requests = [
        config.update_drive("drive0", file="drive0-1.img"),
        config.update_drive("scratch", rate=RATE),
        config.update_drive("scratch", rate=RateLimit()),
        config.update_network(RATE),
        config.metadata({"x": 1}),
        config.vm_state(paused=True),
        config.vm_state(paused=False),
        config.create_snapshot(SnapshotType.FULL, "save1"),
        config.create_snapshot(SnapshotType.DIFF, "save2"),
        config.action("SendCtrlAltDel"),
        config.action("FlushMetrics"),
    ]
    for request in requests:
        description(version).check_request(request.method, request.path, request.body)


def test_what_came_later_names_the_version_it_came_with():
    new = Version.parse("1.16.0")
    for request in (
        config.serial("serial", new, rate=RATE),
        config.load_snapshot(Load(vsock_socket="v2.sock", clock_realtime=True), new),
        *config.boot(spec_of(balloon=Balloon(free_page_reporting=True)), new),
    ):
        openapi(NEWEST).check_request(request.method, request.path, request.body)
    old = Version.parse("1.12.1")
    for needed, make in {
        "1.14": lambda: config.serial("serial", old),
        "1.16": lambda: config.load_snapshot(Load(vsock_socket="v2.sock"), old),
    }.items():
        with pytest.raises(SpecError, match=rf"1\.12\.1 does not have it, {needed} is the first"):
            make()
    with pytest.raises(SpecError, match=r"1\.15\.0 does not have it, 1\.16"):
        config.load_snapshot(Load(clock_realtime=True), Version.parse("1.15.0"))
    with pytest.raises(SpecError, match=r"free page reporting.*1\.14"):
        config.boot(spec_of(balloon=Balloon(free_page_reporting=True)), old)
    with pytest.raises(SpecError, match=r"serial.*1\.16|rate limit.*1\.16"):
        config.serial("serial", Version.parse("1.14.0"), rate=RATE)
    with pytest.raises(SpecError, match="any machine"):
        config.boot(spec_of(), Version.parse("1.11.0"))


def had(release: str) -> set[str]:
    """Every path and every field of a description."""
    whole = document(release)
    bodies = whole["definitions"].items()
    return {*whole["paths"], *(f"{name}.{field}" for name, body in bodies for field in body.get("properties", {}))}


def test_what_came_after_the_oldest_is_known_by_its_release():
    """New bodies as a whole are those of new paths, but for one field."""
    new = had(NEWEST) - had(OLDEST)
    of_old_bodies = {
        name for name in new if name.startswith("/") or name.split(".")[0] in document(OLDEST)["definitions"]
    }
    listed = {name for names in LATER.values() for name in names}
    assert listed - {"SerialDevice.rate_limiter"} == of_old_bodies


GATES = {
    "free page reporting": ((1, 14), lambda v: _only(config.boot(spec_of(balloon=REPORTING), v), "/balloon")),
    "a serial console in a file": ((1, 14), lambda v: config.serial("serial", v)),
    "a limit on it": ((1, 16), lambda v: config.serial("serial", v, rate=RATE)),
    "another vsock": ((1, 16), lambda v: config.load_snapshot(Load(vsock_socket="v2.sock"), v)),
    "the time that has passed": ((1, 16), lambda v: config.load_snapshot(Load(clock_realtime=True), v)),
}


@pytest.mark.parametrize("wished", GATES)
def test_a_wish_is_refused_below_its_release_and_fits_it(wished):
    """Below it Firecracker itself would not take it: the gate is neither too early nor too late."""
    (major, minor), make = GATES[wished]
    since, before = Version(major, minor), Version(major, minor - 1, 99)
    request = make(since)
    openapi(str(since)).check_request(request.method, request.path, request.body)
    with pytest.raises(OpenApiError):
        openapi(str(before)).check_request(request.method, request.path, request.body)
    with pytest.raises(SpecError, match=rf"{before} does not have it, {major}\.{minor} is the first that does"):
        make(before)


def test_dirty_page_tracking_has_the_name_its_release_knows():
    for version, name in (("1.12.99", "enable_diff_snapshots"), ("1.13.0", "track_dirty_pages")):
        request = config.load_snapshot(Load(track_dirty_pages=True), Version.parse(version))
        assert request.body[name] is True
        openapi(version).check_request(request.method, request.path, request.body)


def _only(requests, path):
    return next(request for request in requests if request.path == path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vcpus": 33}, "33 vcpus"),
        ({"network": Network.USER}, "user-mode network"),
        ({"metadata": {}}, "without a network"),
        ({"metadata": {"x": "y" * 60_000}, "network": Network.NAMESPACE}, "51200 bytes of metadata"),
        ({"nested": True}, "nested"),
        ({"huge_pages": True, "memory_mib": 129}, "129 MiB"),
        ({"huge_pages": True, "balloon": Balloon()}, "gives nothing back"),
        ({"balloon": Balloon(mib=1000)}, "1000 MiB"),
        ({"drives": (Drive(name="a b", path=Path("/d")),)}, "'a b'"),
        ({"drives": (Drive(name="a,b", path=Path("/d")),)}, "'a,b'"),
        ({"drives": (Drive(name="x", path=Path("/d")), Drive(name="x", path=Path("/e")))}, "same name"),
        ({"drives": (Drive(name="root", path=Path("/d")),)}, "same name"),
        ({"drives": (Drive(name="x", path=Path("/d"), format="qcow2"),)}, "raw images"),
        ({"kernel_args": ("x" * 2000,)}, "command line"),
    ],
)
def test_what_no_version_can_do_is_a_sentence(changes, words):
    with pytest.raises(SpecError, match=words):
        config.boot(spec_of(**changes), Version.parse("1.16.1"))


def test_disks_are_told_in_their_order():
    line = config.command_line(FULL)
    assert "firebrick.disks=root,scratch,cache-1,other" in line
    assert "acpi=off" not in line
    assert "firebrick.disks=scratch " in config.command_line(spec_of(root=None, kernel_args=("x",)))
    drives = [r for r in config.boot(FULL, Version.parse("1.12.1")) if r.path.startswith("/drives/")]
    assert [d.path.removeprefix("/drives/") for d in drives] == ["root", "scratch", "drive0", "drive1"]
    assert [d.body["is_read_only"] for d in drives] == [True, False, False, True]
    assert not any(d.body["path_on_host"].startswith("/") for d in drives)


def test_an_update_takes_away_what_is_not_limited_any_more():
    body = config.update_drive("scratch", rate=RateLimit(bytes_per_s=5)).body
    assert body["rate_limiter"] == {
        "bandwidth": {"size": 5, "refill_time": 1000},
        "ops": {"size": 0, "refill_time": 0},
    }


@pytest.mark.parametrize("machine", ["0123456789ab", "a.b_c/é", "x" * 200])
def test_instance_ids_are_what_firecracker_takes(machine):
    name = config.instance_id(machine)
    assert name.startswith("firebrick-") and len(name) <= 64 and name.isascii()
    assert all(c.isalnum() or c == "-" for c in name)
