"""Machines for jobs: forks of a template that is made once, made again where it is of no use, and never more than there is room for."""

import asyncio

import pytest

from firebrick.guest.errors import AgentError
from firebrick.home import Home
from firebrick.image.model import Image, ImageManifest, Kernel, KernelManifest
from firebrick.machine import Allow, Fake, HostError, Machine, NetworkPolicy, Snapshot
from firebrick.node.errors import NoNodeError
from firebrick.node.order import Resources
from firebrick.node.pool.pool import Pool
from firebrick.node.settings import Allowed, NodeSettings

RESOURCES = Resources(vcpus=1, memory_mib=128, scratch_mib=64)


class FileStore:
    """A store whose kernel and image are two small files."""

    def __init__(self, directory):
        self.directory = directory
        self.claims = []
        for name in ("kernel", "initrd", "root"):
            (directory / name).write_bytes(b"x")

    def list_definitions(self):
        return ["base"]

    def list_images(self):
        return []

    async def ensure_kernel(self, name, *, progress):
        manifest = KernelManifest(digest="k", elf_digest="e", version="6.1", package="p", definition="d", created=0.0)
        files = {
            "path": self.directory / "kernel",
            "elf": self.directory / "kernel",
            "initrd": self.directory / "initrd",
        }
        return Kernel(name=name, digest="k", manifest=manifest, **files)

    async def ensure_image(self, name, *, progress):
        manifest = ImageManifest(digest=f"digest-{name}", definition="d", kind="debian", size=1, created=0.0)
        return Image(name=name, path=self.directory / "root", manifest=manifest)

    def claim(self, image, user):
        self.claims.append((image.name, user))


class Said(list):
    def __call__(self, text):
        self.append(text)


@pytest.fixture
def driver():
    return Fake()


@pytest.fixture
def pool(tmp_path, driver):
    store = FileStore(tmp_path)
    return Pool(Home(tmp_path / "home"), driver, NodeSettings(templates_kept=2), capacity=2, store=store)


async def lend_once(pool, image="base", resources=RESOURCES):
    said = Said()
    async with pool.lend(image, resources, purpose="test", say=said) as loan:
        done = await loan.guest.run(["echo", "hi"], check=True)
        assert done.stdout == b"hi\n"
        assert [info.id for info in pool.roster.list()] == [loan.machine]
    assert pool.roster.list() == ()
    return said


def templates(tmp_path):
    return sorted(p for p in (tmp_path / "home" / "templates").iterdir() if p.is_dir())


async def test_the_template_is_made_once(pool, driver, tmp_path):
    first = await lend_once(pool)
    second = await lend_once(pool)
    assert "Making the template for base" in first[0]
    assert second == []
    assert len(driver.machines) == 3
    assert len(templates(tmp_path)) == 1


async def test_a_machine_that_is_booted_leaves_no_template(pool, driver, tmp_path):
    async with pool.lend_booted("once", RESOURCES, purpose="test", say=Said()) as loan:
        assert (await loan.guest.run(["echo", "hi"], check=True)).stdout == b"hi\n"
        assert (loan.start, [info.id for info in pool.roster.list()]) == ("boot", [loan.machine])
        [(image, user)] = pool._store.claims
        assert (image, user) == ("once", loan.scratch), "the image stays as long as the machine"
    assert pool.roster.list() == ()
    assert len(driver.machines) == 1 and all(machine.ended for machine in driver.machines)
    assert not (tmp_path / "home" / "templates").exists()


async def test_several_that_come_at_once_make_one_template(pool, driver):
    await asyncio.gather(lend_plain(pool), lend_plain(pool))
    assert len(driver.machines) == 3


async def lend_plain(pool):
    async with pool.lend("base", RESOURCES, purpose="test", say=Said()) as loan:
        await loan.guest.run(["true"], check=True)


async def test_what_a_template_depends_on_makes_another_one(pool, driver, tmp_path):
    await lend_once(pool)
    await lend_once(pool, resources=Resources(vcpus=2, memory_mib=128, scratch_mib=64))
    driver.version = "2"
    await lend_once(pool)
    assert len(templates(tmp_path)) == 2  # three were made, the oldest was forgotten


async def test_a_template_made_before_a_policy_is_forked_with_that_policy(pool, driver, monkeypatch):
    await lend_once(pool)
    asked = []
    real = driver.restore

    def restore(spec, snapshot, directory, **how):
        asked.append(spec.policy)
        return real(spec, snapshot, directory, **how)

    monkeypatch.setattr(driver, "restore", restore)
    pool._settings = NodeSettings(allow=(Allowed(to="192.0.2.7", ports=(80,)),))
    assert await lend_once(pool) == []
    assert asked == [NetworkPolicy(allow=(Allow("192.0.2.7", (80,)),))]


async def test_a_repository_pushes_no_template_of_another_out(pool, tmp_path):
    async def lend(tenant, image):
        said = Said()
        async with pool.lend(image, RESOURCES, purpose="test", say=said, tenant=tenant):
            pass
        return bool(said)

    assert await lend("quiet", "base")
    for image in ("one", "two", "three"):
        assert await lend("flood", image)
        assert len(templates(tmp_path)) == 2
    assert not await lend("quiet", "base"), "it has its template still"
    assert await lend("flood", "one"), "it has pushed out its own"


@pytest.mark.parametrize("damage", ["cut", "manifest", "gone"])
async def test_a_damaged_template_is_made_anew(pool, driver, tmp_path, damage):
    await lend_once(pool)
    [template] = templates(tmp_path)
    taken = Snapshot.load(template)
    for file in sorted(template.iterdir()):
        is_manifest = file.suffix == ".json"
        if damage == "gone" or (damage == "manifest") == is_manifest:
            file.unlink() if damage == "gone" else file.write_bytes(b"")
    assert "Making the template" in (await lend_once(pool))[0]
    assert Snapshot.load(template).id != taken.id


async def test_never_more_than_there_is_room_for(pool):
    inside, most, said, two = 0, 0, Said(), asyncio.Event()

    async def use():
        nonlocal inside, most
        async with pool.lend("base", RESOURCES, purpose="test", say=said):
            inside += 1
            most = max(most, inside)
            if inside == 2:
                two.set()
            await two.wait()
            inside -= 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(use() for _ in range(5)))
    assert most == 2
    assert "Waiting for a machine: the node carries 2 at once." in said


async def test_a_host_that_cannot_is_told_and_leaves_nothing(pool, driver, tmp_path):
    driver.faults.start = HostError("there is no qemu", hint="Install it.")
    with pytest.raises(HostError, match="no qemu"):
        await lend_once(pool)
    driver.faults.start = None
    assert list((tmp_path / "home" / "machines").iterdir()) == []
    await lend_once(pool)


async def test_forks_on_request_live_until_the_roster_closes(pool, driver):
    async with pool.lend("base", RESOURCES, purpose="a test", say=Said()) as loan:
        copy, milliseconds = await pool.roster.fork(loan.machine[:6])
        assert milliseconds > 0
        assert {info.purpose for info in pool.roster.list()} == {"a test", f"fork of {loan.machine}"}
        await pool.roster.find(copy).machine.kill()
        async with asyncio.timeout(5):
            while len(pool.roster.list()) > 1:
                await asyncio.sleep(0)
        await pool.roster.fork(loan.machine)
    await pool.roster.close()
    assert pool.roster.list() == ()
    with pytest.raises(NoNodeError, match="no machine begins"):
        pool.roster.find(copy)


async def test_prepare_makes_the_template(pool, driver, tmp_path):
    await pool.prepare("base", RESOURCES, Said())
    assert len(templates(tmp_path)) == 1
    assert await lend_once(pool) == []


async def test_what_a_killed_process_has_half_made_is_removed(pool, tmp_path):
    await lend_once(pool)
    [template] = templates(tmp_path)
    draft = template.with_name(f".{template.name}.0badcafe")
    template.rename(draft)
    await lend_once(pool)
    assert not draft.exists()
    assert templates(tmp_path) == [template]


async def test_machines_with_nodejs_have_a_template_of_their_own(pool, tmp_path):
    node = tmp_path / "node-1"
    (node / "bin").mkdir(parents=True)
    (node / "bin" / "node").write_bytes(b"program")
    for wanted in (node, None, node):
        async with pool.lend("base", RESOURCES, purpose="test", say=Said(), node=wanted) as loan:
            assert await loan.guest.files.exists("/opt/externals/node24/bin/node") is (wanted is not None)
    assert len(templates(tmp_path)) == 2


async def test_a_template_without_room_for_nodejs_goes_without(pool, tmp_path, monkeypatch):
    async def upload(machine, source, target, **options):
        await machine.files.write(f"{target}/bin/node", b"half of it", parents=True)
        raise AgentError("no space left", code="no_space")

    monkeypatch.setattr(Machine, "upload", upload)
    said = Said()
    async with pool.lend("base", RESOURCES, purpose="test", say=said, node=tmp_path) as loan:
        assert not await loan.guest.files.exists("/opt/externals/node24")
    assert "Node.js is left out of the template: no space left" in said
