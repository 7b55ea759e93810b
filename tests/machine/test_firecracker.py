"""The Firecracker driver with a program in Firecracker's place: whole lives, where no KVM is needed. Real guests are in tests/lab."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import (
    Balloon,
    BootError,
    Drive,
    ExitCause,
    Firecracker,
    FirecrackerMachine,
    FirecrackerSettings,
    HostError,
    Machine,
    MachineGoneError,
    MachineSpec,
    Network,
    RateLimit,
    SnapshotError,
    SpecError,
    StateError,
)
from firebrick.machine.driver import Baseline
from firebrick.machine.firecracker import pages as firecracker_pages
from firebrick.machine.firecracker.api import Api, FirecrackerError
from firebrick.machine.seat import Seat

ROOT = Path(__file__).parents[2]


def driver_of(tmp_path: Path, version: str = "1.12.1", **options) -> Firecracker:
    """The double, as this release."""
    program = tmp_path / f"firecracker-{version}"
    if not program.exists():
        words = [sys.executable, "-m", "tests.firecracker.double", "--as", version]
        path = f"{ROOT / 'src'}:{ROOT}"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(path)} exec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
    return Firecracker(tmp_path / "cache", FirecrackerSettings(binary=str(program)), **options)


def spec_of(tmp_path: Path, **changes) -> MachineSpec:
    for name in ("kernel", "initrd", "root"):
        (tmp_path / name).write_bytes(b"\x7fELF" + bytes(508))
    given = {"kernel": tmp_path / "kernel", "initrd": tmp_path / "initrd", "root": tmp_path / "root"}
    return MachineSpec(**given | {"memory_mib": 64, "scratch_mib": 16} | changes)


@asynccontextmanager
async def launched(driver: Firecracker, spec: MachineSpec, tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine.launch(spec, driver, home=tmp_path) as made:
        yield made
    assert not list((tmp_path / "machines").iterdir())


def vm_of(made: Machine) -> FirecrackerMachine:
    assert isinstance(made.vm, FirecrackerMachine)
    return made.vm


@pytest.mark.parametrize("version", ["1.12.1", "1.13.0", "1.14.4", "1.15.1", "1.16.1", "1.16.2"])
async def test_a_life(tmp_path: Path, version: str):
    driver = driver_of(tmp_path, version)
    async with launched(driver, spec_of(tmp_path), tmp_path) as source:
        assert (await source.run(["echo", "x"])).stdout == b"x\n"
        assert "the double started" in source.console()
        await source.pause()
        await source.resume()
        assert (await source.run(["echo", "y"])).stdout == b"y\n"
        async with source.exec(["cat"], stdin=True) as cat:
            await cat.write(b"before")
            assert await cat.stdout.read() == b"before"
            taken = await source.snapshot(tmp_path / "taken")
            await cat.write(b"after")
            assert await cat.stdout.read() == b"after"
        assert taken.facts["Firecracker"] == version
        async with machine.restore(taken, driver, home=tmp_path) as clone, source.fork() as fork:
            names = [(await m.files.read("/etc/machine-id")) for m in (source, clone, fork)]
            assert len(set(names)) == 3
        assert (await source.stop()).cause is ExitCause.POWEROFF


async def test_a_paused_machine_stays_so_after_a_snapshot(tmp_path: Path):
    driver = driver_of(tmp_path)
    async with launched(driver, spec_of(tmp_path), tmp_path) as made:
        await made.pause()
        await made.snapshot(tmp_path / "taken")
        assert (await vm_of(made)._get("/"))["state"] == "Paused"
        await made.resume()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"


async def test_a_difference_needs_tracking(tmp_path: Path):
    (tmp_path / "diff").mkdir()
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        assert vm_of(made).baseline is Baseline.NONE
        await vm_of(made).pause()
        with pytest.raises(SnapshotError, match="without dirty page tracking"):
            await vm_of(made).save(tmp_path / "diff", diff=True)
    async with launched(driver_of(tmp_path, track_dirty_pages=True), spec_of(tmp_path), tmp_path) as made:
        assert vm_of(made).baseline is Baseline.LAST
        await vm_of(made).pause()
        await vm_of(made).save(tmp_path / "diff", diff=True)
    memory = tmp_path / "diff" / "memory"
    assert memory.stat().st_size == 64 << 20
    assert memory.stat().st_blocks * 512 <= 64 << 10


@pytest.mark.parametrize(("version", "baseline"), [("1.14.0", Baseline.NONE), ("1.15.0", Baseline.LAST)])
async def test_large_differences_are_damaged_before_they_were_repaired(
    tmp_path: Path, version: str, baseline: Baseline
):
    driver = driver_of(tmp_path, version, track_dirty_pages=True)
    async with launched(driver, spec_of(tmp_path, memory_mib=3073), tmp_path) as made:
        assert vm_of(made).baseline is baseline
        if baseline is Baseline.NONE:
            await vm_of(made).pause()
            with pytest.raises(SnapshotError, match=r"more than 3 GiB.*1\.14\.0"):
                await vm_of(made).save(tmp_path, diff=True)


async def test_what_only_this_driver_has(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode().ljust(512, b"\0"))
    drives = (Drive(name="extra", path=tmp_path / "one"), Drive(name="own", path=tmp_path / "two", read_only=False))
    spec = spec_of(tmp_path, drives=drives, balloon=Balloon(statistics_s=1))
    driver = driver_of(tmp_path)
    async with launched(driver, spec, tmp_path) as made:
        vm = vm_of(made)
        await vm.set_balloon(8)
        assert (await vm.balloon_statistics())["actual_mib"] == 8
        assert (await vm.metrics())["block"] == {"read_count": 7}
        assert vm.last_metrics()["utc_timestamp_ms"] == 1
        assert "Running Firecracker" in vm.log()
        await vm.update_drive("extra", path=tmp_path / "two", rate=RateLimit(bytes_per_s=10))
        [changed] = [d for d in (await vm.description())["drives"] if d["drive_id"] == "drive0"]
        assert changed["path_on_host"] == "drive0-1.img" and changed["rate_limiter"]["bandwidth"]["size"] == 10
        for name in ("root", "scratch"):
            with pytest.raises(SpecError, match="has it mounted"):
                await vm.update_drive(name, path=tmp_path / "two")
        with pytest.raises(FirecrackerError, match="not found") as caught:
            await vm.update_network_rate(RateLimit(bytes_per_s=1))
        assert caught.value.status == 400
        taken = await made.snapshot(tmp_path / "taken")
    assert (taken.path / "drive1.img").read_bytes().startswith(b"two"), "a disk the machine writes is in its snapshot"
    async with machine.restore(taken, driver, home=tmp_path) as again:
        assert (again.directory / "drive0-1.img").read_bytes().startswith(b"two")
        assert not (again.directory / "drive1.img").samefile(tmp_path / "two")


class _Slot:
    seat = Seat(0, 1, 1)
    netns = None
    tap = "tap0"


class Nets:
    """A network in name only, for what is said over the API."""

    @asynccontextmanager
    async def slot(self, policy, occupant):
        yield _Slot()


async def test_metadata_is_there_again_after_a_restore(tmp_path: Path):
    driver = driver_of(tmp_path, network=Nets())
    spec = spec_of(tmp_path, network=Network.NAMESPACE, metadata={"a": 1, "b": 2})
    async with launched(driver, spec, tmp_path) as made:
        assert await vm_of(made).metadata() == {"a": 1, "b": 2}
        await vm_of(made).patch_metadata({"a": None, "c": 3})
        assert await vm_of(made).metadata() == {"b": 2, "c": 3}
        await vm_of(made).put_metadata({"z": 0})
        assert await vm_of(made).metadata() == {"z": 0}
        async with made.fork() as fork:
            assert await vm_of(fork).metadata() == {"a": 1, "b": 2}
            assert (await fork.run(["echo", "x"])).stdout == b"x\n"


async def test_a_network_needs_one_who_makes_it(tmp_path: Path):
    with pytest.raises(HostError, match="without one") as caught:
        async with launched(driver_of(tmp_path), spec_of(tmp_path, network=Network.NAMESPACE), tmp_path):
            pass
    assert caught.value.hint


async def test_the_ladder_goes_down_rung_by_rung(tmp_path: Path):
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        made.agent.lose(EOFError("for the test"))
        assert (await made.stop(deadline=5)).cause is ExitCause.POWEROFF, "the keys ended it"
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        await vm_of(made).terminate()
        assert (await made.wait()).cause is ExitCause.KILLED
        with pytest.raises(StateError):
            await made.pause()
        with pytest.raises(MachineGoneError):
            await vm_of(made).metadata()


@pytest.mark.parametrize("version", ["1.15.1", "1.16.2"])
async def test_before_and_after_the_releases_that_go_deaf_it_is_asked_to_pause(tmp_path: Path, version: str):
    async with launched(driver_of(tmp_path, version), spec_of(tmp_path), tmp_path) as made:
        await made.pause()
        assert Path(f"/proc/{made.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
        assert await vm_of(made).metadata() == {}
        await made.resume()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"


@pytest.mark.parametrize("version", ["1.16.0", "1.16.1"])
async def test_a_release_that_goes_deaf_is_stopped_in_another_way(tmp_path: Path, version: str):
    async with launched(driver_of(tmp_path, version), spec_of(tmp_path), tmp_path) as made:
        await made.pause()
        assert Path(f"/proc/{made.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        with pytest.raises(StateError, match="cannot be asked while it is paused"):
            await vm_of(made).metadata()
        await made.resume()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"
        await made.pause()
        await made.snapshot(tmp_path / "taken")
        await made.resume()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"


async def test_what_cannot_be_restored_is_told(tmp_path: Path):
    driver = driver_of(tmp_path)
    async with launched(driver, spec_of(tmp_path), tmp_path) as made:
        taken = await made.snapshot(tmp_path / "taken")
    with pytest.raises(SnapshotError, match=r"Firecracker 1\.12\.1 and .* this host has Firecracker 1\.13\.0"):
        async with machine.restore(taken, driver_of(tmp_path, "1.13.0"), home=tmp_path):
            pass
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(SnapshotError, match="Invalid snapshot version"):
        async with driver_of(tmp_path, "1.13.0").restore(taken.spec, taken.path, own):
            pass
    (own / "v.sock").write_text("left by somebody")
    for file in own.iterdir():
        if file.name != "v.sock":
            file.unlink()
    async with driver.restore(taken.spec, taken.path, own) as vm:
        assert (await vm._get("/"))["state"] == "Running", "a stale socket was in the way"


async def test_what_does_not_start_is_told(tmp_path: Path):
    spec = spec_of(tmp_path)
    with pytest.raises(HostError, match="is not on this host"):
        async with launched(Firecracker(tmp_path, FirecrackerSettings(binary="/none")), spec, tmp_path):
            pass
    with pytest.raises(HostError, match=r"1\.11\.0 is too old"):
        async with launched(driver_of(tmp_path, "1.11.0"), spec, tmp_path):
            pass
    (tmp_path / "kernel").write_bytes(b"MZ")
    with pytest.raises(SpecError, match="not an ELF"):
        async with launched(driver_of(tmp_path), spec, tmp_path):
            pass
    broken = tmp_path / "broken"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo Firecracker v1.12.1; exit; }\necho no luck >&2; exit 153\n'
    )
    broken.chmod(0o755)
    with pytest.raises(HostError, match="refused its arguments: no luck"):
        async with launched(
            Firecracker(tmp_path / "cache", FirecrackerSettings(binary=str(broken))), spec_of(tmp_path), tmp_path
        ):
            pass


async def test_a_snapshot_that_is_none_leaves_the_machine(tmp_path: Path):
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        (made.directory / "scratch.img").unlink()
        (made.directory / "scratch.img").symlink_to("/etc/passwd")
        with pytest.raises(SnapshotError, match="cannot save"):
            await made.snapshot(tmp_path / "taken")
        assert not (tmp_path / "taken").exists()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"


async def test_calls_that_are_given_up_do_not_answer_others(tmp_path: Path):
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        api = vm_of(made)._vmm.api
        for _ in range(5):
            call = asyncio.create_task(api.get("/"))
            await asyncio.sleep(0)
            call.cancel()
            assert await api.get("/version") == {"firecracker_version": "1.12.1"}
        with pytest.raises(FirecrackerError, match=r"Invalid request method and/or path: GET nope\."):
            await api.get("/nope")
        with pytest.raises(FirecrackerError, match="deserializing"):
            await api.put("/actions", {"action": "x"})


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (5 << 20),
    ],
)
async def test_a_vmm_that_talks_nonsense_has_ended(tmp_path: Path, answer: bytes):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "api.sock")
    async with server:
        api = Api(tmp_path / "api.sock")
        with pytest.raises(MachineGoneError):
            await api.get("/version")
        await api.close()


async def test_deep_json_of_a_vmm_is_text(tmp_path: Path):
    deep = b"[" * 100_000

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(deep) + deep)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "api.sock")
    async with server:
        api = Api(tmp_path / "api.sock")
        assert await api.get("/version") == deep.decode()
        await api.close()


async def test_the_socket_is_where_it_is_looked_for(tmp_path: Path):
    base = driver_of(tmp_path)
    settings = FirecrackerSettings(binary=base.settings.binary, socket_dir=tmp_path / "sockets")
    async with launched(Firecracker(tmp_path / "cache", settings), spec_of(tmp_path), tmp_path) as made:
        assert (tmp_path / "sockets" / f"{made.id}.sock").resolve() == made.directory / "api.sock"
    assert not list((tmp_path / "sockets").iterdir())


async def test_what_firecracker_refuses_is_a_boot_that_failed_with_its_log(tmp_path: Path):
    with pytest.raises(BootError, match=r"refused PUT /cpu-config.*'odd' was unexpected") as caught:
        async with launched(driver_of(tmp_path, "1.14.0"), spec_of(tmp_path, cpu_template={"odd": 1}), tmp_path):
            pass
    assert "Received Error" in caught.value.console


class _Pages:
    pid = 0

    def __init__(self) -> None:
        self.asked: list[Path] = []
        self.options: list[dict[str, Path]] = []
        self.broken = asyncio.Event()

    async def recorded(self) -> Path:
        self.options[-1]["record"].write_text("firebrick-prefetch 1\n0 4096\nend 1\n")
        return self.options[-1]["record"]

    @asynccontextmanager
    async def __call__(self, root: Path, *, memory: Path, seat=None, **options):
        self.asked.append(memory)
        self.options.append(options)
        assert not (root / "memory").exists(), "memory that is served is not in the room"

        async def ending():
            await self.broken.wait()
            return HostError("no more pages")

        self.ended = asyncio.create_task(ending())
        yield self
        self.ended.cancel()
        await asyncio.gather(self.ended, return_exceptions=True)


async def test_a_machine_whose_page_server_dies_is_ended(tmp_path: Path):
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        taken = await made.snapshot(tmp_path / "taken")
    pages = _Pages()
    async with machine.restore(taken, driver_of(tmp_path, pager=pages), home=tmp_path) as made:
        assert pages.asked == [taken.path / "memory"]
        assert (await made.run(["echo", "x"])).stdout == b"x\n"
        pages.broken.set()
        end = await asyncio.wait_for(made.wait(), 10)
    assert (end.cause, end.message) == (ExitCause.CRASHED, "it was ended: its page server ended: no more pages")


async def test_pages_are_recorded_once_and_come_ahead_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(firecracker_pages, "RECORD_S", 0.0)
    async with launched(driver_of(tmp_path), spec_of(tmp_path), tmp_path) as made:
        taken = await made.snapshot(tmp_path / "taken")
    pages = _Pages()
    driver = driver_of(tmp_path, pager=pages, prefetch=True)
    listed = taken.path / firecracker_pages.LIST
    for _ in range(2):
        async with machine.restore(taken, driver, home=tmp_path) as made:
            assert (await made.run(["echo", "x"])).stdout == b"x\n"
            assert listed.exists()
    listed.write_text("damaged")
    async with machine.restore(taken, driver, home=tmp_path):
        pass
    assert pages.options == [{"record": listed}, {"prefetch": listed}, {"record": listed}]
    monkeypatch.undo()
    async with machine.restore(taken, driver_of(tmp_path, pager=pages), home=tmp_path):
        assert pages.options[-1] == {}


async def test_memory_of_huge_pages_needs_a_page_server(tmp_path: Path):
    with pytest.raises(SnapshotError, match="huge pages"):
        async with driver_of(tmp_path).restore(spec_of(tmp_path, huge_pages=True), tmp_path, tmp_path):
            pass
