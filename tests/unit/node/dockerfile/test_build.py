"""Actions with a Dockerfile: what is built of them, what is kept and for whom, and what goes wrong."""

from __future__ import annotations

import asyncio
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from firebrick.guest.double.disk import MemoryDisk
from firebrick.guest.double.programs import PROGRAMS
from firebrick.guest.double.task import Task
from firebrick.image.oci_config import ImageConfig
from firebrick.node.event import CancelCause, LogLine
from tests.unit.node.action.test_action import job, said
from tests.unit.node.conftest import WORKSPACE, Bed, Told

ACTION = "name: T\ndescription: x\nruns: {using: docker, image: Dockerfile}\n"
USES = job("uses: octo/d@v1")


async def tell(task: Task) -> int:
    """Says what is in the files it is given, and its variables."""
    for word in task.argv[1:]:
        if word.startswith(b"$"):
            await task.out(word + b"=" + task.env.get(word[1:], b"(none)") + b"\n")
            continue
        node = task.disk.find(task.path(word), follow=False)
        text = node.target or node.content.read(0, 1 << 16)
        await task.out(word + f" {node.mode:o} {node.uid}:{node.gid} ".encode() + text.strip() + b"\n")
    return 0


@pytest.fixture
def building(bed: Bed) -> Bed:
    bed.lender.containers = {
        "tool:1": ImageConfig(entrypoint=("tell",), command=("/etc/made",), environment=("KIND=image",)),
        "other": ImageConfig(),
    }
    bed.lender.programs |= {"/bin/sh": PROGRAMS["sh"], "tell": tell}
    return bed


def add(bed: Bed, dockerfile: str, **files: str) -> None:
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    bed.actions.add("octo/d@v1", {"action.yml": ACTION, "Dockerfile": dockerfile, **named})


def built(bed: Bed) -> list[MemoryDisk]:
    return list(bed.lender.built.disks.values())


def left_nothing(bed: Bed) -> bool:
    return (
        bed.lender.lent == 0 and bed.lender.built.making_now == 0 and not any(d.exists() for d in bed.lender.shelters)
    )


async def test_an_image_is_built_run_and_found_again(building: Bed) -> None:
    add(building, "FROM tool:1\nENV MORE=more\nRUN echo $KIND $MORE > /etc/made; echo working\n")
    told = await building.run(USES)
    assert told.steps() == ["success"], said(told)
    assert said(told) == [
        "##[group]Build container for action use: 'octo/d@v1/Dockerfile'",
        "[1/1] RUN echo $KIND $MORE > /etc/made; echo working",
        "working",
        "Making an image of what was built",
        f"Kept as the image {next(iter(building.lender.built.disks))}",
        "##[endgroup]",
        "/etc/made 644 0:0 image more",
    ]
    assert left_nothing(building)
    told = await building.run(USES)
    [name] = building.lender.built.disks
    assert said(told) == [
        f"The image of 'octo/d@v1/Dockerfile' is here already: {name}",
        "/etc/made 644 0:0 image more",
    ]
    assert len(built(building)) == 1
    assert [image for image, _, _ in building.lender.asked][:2] == ["base", "tool:1"]


async def test_what_is_made_of_the_instructions(building: Bed) -> None:
    add(
        building,
        """\
        ARG WHERE=/srv
        FROM tool:1
        ARG WHERE
        ARG LATER=yes
        WORKDIR $WHERE/app
        COPY --chmod=640 --chown=7:8 one.txt named
        COPY *.txt tree many/
        COPY tree /etc
        COPY <<"END" <<OTHER /texts/
        $WHERE
        END
        $WHERE
        OTHER
        RUN ["tell", "named", "many/one.txt", "many/link", "/texts/END", "/texts/OTHER", "$LATER"]
        ENTRYPOINT ["tell", "/etc/below/deep"]
        """.replace("        ", ""),
        one_txt="1\n",
        two_txt="2\n",
        tree__below__deep="deep\n",
        tree__file="f\n",
    )
    (building.actions.directory / "octo/d@v1/tree/link").symlink_to("below/deep")
    told = await building.run(USES)
    assert told.steps() == ["success"], said(told)
    assert [line for line in said(told) if line[0] not in "#[MK"] == [
        "named 640 7:8 1",
        "many/one.txt 644 0:0 1",
        "many/link 777 0:0 below/deep",
        "/texts/END 644 0:0 $WHERE",
        "/texts/OTHER 644 0:0 /srv",
        "$LATER=yes",
        "/etc/below/deep 644 0:0 deep",
    ]
    [disk] = built(building)
    assert disk.find(b"/etc").mode == 0o755
    assert disk.file(b"/srv/app/many/two.txt").content.read(0, 9) == b"2\n"


async def test_a_cache_is_no_part_of_the_image(building: Bed) -> None:
    run = "RUN --mount=type=cache,target=/cache/of --mount=type=cache,target=/etc"
    add(building, f"FROM tool:1\n{run} echo x > /cache/of/file; echo kept > /etc/made\n")
    told = await building.run(USES)
    assert said(told)[-1] == "/etc/made 644 0:0 kept", "what was there before stays"
    [disk] = built(building)
    assert not disk.directory(b"/cache").names


async def test_stages(building: Bed) -> None:
    add(
        building,
        """\
        FROM tool:1 AS unused
        RUN no-such-program
        FROM tool:1 AS common
        RUN echo common > /common
        FROM common AS build
        RUN echo built > /out-1; echo more > /out-2
        FROM scratch
        COPY --from=common /common /from/
        COPY --from=build /out-* /from/
        COPY --from=other /etc /other
        CMD ["tell", "/from/common", "/from/out-1", "/from/out-2"]
        """.replace("        ", ""),
    )
    told = await building.run(USES)
    assert told.steps() == ["success"], said(told)
    assert said(told)[-3:] == ["/from/common 644 0:0 common", "/from/out-1 644 0:0 built", "/from/out-2 644 0:0 more"]
    assert building.lender.most == 2, "one machine beside the job's at a time"
    assert left_nothing(building)
    assert len(building.lender.built.made) == 3, (
        "what others begin from is kept as well: common, the empty root, the last"
    )


async def test_what_changes_is_built_anew(building: Bed) -> None:
    add(building, "FROM tool:1\nCOPY x /etc/made\n", x="1", other="1")
    await building.run(USES)
    add(building, "# a comment\nFROM tool:1\n\nCOPY x /etc/made\n", other="2")
    told = await building.run(USES)
    assert "is here already" in said(told)[0], "neither a comment nor a file nobody copies makes a difference"
    add(building, "FROM tool:1\nCOPY x /etc/made\n", x="2")
    told = await building.run(USES)
    assert said(told)[-1] == "/etc/made 644 0:0 2"
    assert len(built(building)) == 2


def source(event: str, ref: str, **payload: object) -> dict[str, object]:
    return {"event_name": event, "ref": ref, "event": {"repository": {"default_branch": "main"}, **payload}}


PULL = source("pull_request", "refs/pull/1/merge", pull_request={"base": {"ref": "main"}})
TARGET = source("pull_request_target", "refs/heads/main", pull_request={"base": {"ref": "main"}})


async def test_a_branch_uses_nothing_a_pull_request_has_built(building: Bed) -> None:
    add(building, "FROM tool:1\nRUN echo x > /etc/made\n")
    for given, count in ((PULL, 1), (TARGET, 2), (source("push", "refs/heads/main"), 3), (PULL, 3)):
        async with building.live(USES, source=given) as run:
            assert (await run.result()).conclusion == "success"
        assert len(built(building)) == count, given
    async with building.live(USES, source={**source("push", "refs/heads/main"), "tenant": "another"}) as run:
        await run.result()
    assert len(built(building)) == 4


async def test_a_directory_uses_nothing_another_one_has_built(building: Bed, tmp_path: Path) -> None:
    add(building, "FROM tool:1\nRUN echo x > /etc/made\n")
    await building.run(USES)
    other = tmp_path / "another"
    other.mkdir()
    async with building.live(USES, source={"path": other}) as run:
        assert (await run.result()).conclusion == "success"
    assert len(built(building)) == 2


async def test_who_wants_the_same_waits_for_it(building: Bed) -> None:
    add(building, "FROM tool:1\nRUN echo x > /etc/made\n")
    text = USES.replace("    steps:", "    strategy: {matrix: {n: [1, 2]}}\n    steps:")
    told = await building.run(text)
    assert told.result.conclusion == "success"
    lines = [event.text for event in told.events if isinstance(event, LogLine)]
    assert lines.count("/etc/made 644 0:0 x") == 2
    assert lines.count("[1/1] RUN echo x > /etc/made") == 1
    assert len(building.lender.built.made) == 1


async def test_an_action_of_the_workspace(building: Bed) -> None:
    files = {"action.yml": ACTION.replace("Dockerfile", "image/Dockerfile"), "image/made": "of the workspace"}
    building.local(
        "mine", {**files, "image/Dockerfile": "FROM tool:1\nCOPY . /etc\n", "image/.dockerignore": "Dockerfile\n"}
    )
    told = await building.run(job("uses: ./mine"))
    assert told.steps() == ["success"], said(told)
    assert said(told)[0] == "##[group]Build container for action use: 'mine/image/Dockerfile'"
    assert said(told)[-1] == "/etc/made 644 0:0 of the workspace"
    [disk] = built(building)
    assert b"Dockerfile" not in disk.directory(b"/etc").names


async def test_only_a_dockerfile(building: Bed) -> None:
    building.actions.add("octo/d@v1", {"sub/Dockerfile": "FROM tool:1\nRUN echo hi > /etc/made"})
    told = await building.run(job("uses: octo/d/sub@v1"))
    assert said(told)[-1] == "/etc/made 644 0:0 hi"


@pytest.mark.parametrize(
    ("dockerfile", "reason"),
    [
        ("FROM tool:1\nRUN echo so; exit 3\n", "octo/d@v1/Dockerfile:2: `RUN echo so; exit 3` failed: it exited with status 3"),
        ("FROM tool:1\n\nRUN [\"nothing\"]\n", "octo/d@v1/Dockerfile:3: `RUN [\"nothing\"]` failed"),
        ("FROM none\n", "octo/d@v1/Dockerfile:1: there is no image `none` on this node"),
        ("FROM tool:1\nCOPY missing /\n", "octo/d@v1/Dockerfile:2: there is no file 'missing'"),
        ("FROM tool:1\nCOPY ../x /\n", "octo/d@v1/Dockerfile:2: '../x' is outside of the directory of the Dockerfile"),
        ("FROM tool:1\nCOPY out /\n", "octo/d@v1/Dockerfile:2: 'out' leads out of the directory of the Dockerfile"),
        ("FROM tool:1\nCOPY up/etc/passwd /\n", "octo/d@v1/Dockerfile:2: 'up/etc/passwd' leads out"),
        ("FROM tool:1\nADD https://example.org/x /\n", "octo/d@v1/Dockerfile:2: ADD from an address is not supported"),
        ("FROM tool:1\nCOPY --chown=who x /\n", "octo/d@v1/Dockerfile:2: `COPY --chown=who x /` failed: there is no user or group 'who'"),
        ("FROM tool:1\nCOPY --from=other /nowhere /x\n", "octo/d@v1/Dockerfile:2: there is no file '/nowhere'"),
        ("FROM tool:1\nRUN --mount=type=secret,id=x true\n", "octo/d@v1/Dockerfile:2: RUN --mount=type=secret,id=x is not supported"),
        ("FROM tool:1\nNONE such\n", "octo/d@v1/Dockerfile:2: there is no instruction NONE"),
        ("RUN true\n", "octo/d@v1/Dockerfile:1: the first instruction besides ARG must be FROM, not RUN"),
        ("", "octo/d@v1/Dockerfile: it has no FROM"),
    ],
)  # fmt: skip
async def test_what_is_wrong_fails_the_step_with_its_line(building: Bed, dockerfile: str, reason: str) -> None:
    add(building, dockerfile, x="x")
    (building.actions.directory / "octo/d@v1/out").symlink_to("/etc/passwd")
    (building.actions.directory / "octo/d@v1/up").symlink_to("../../../../../../..")
    told = await building.run(job("uses: octo/d@v1", "if: always()\n        run: echo on"))
    assert told.steps() == ["failure", "success"]
    assert any(line.startswith(f"##[error]{reason}") for line in said(told)), said(told)
    assert left_nothing(building)
    assert built(building) == []


@pytest.mark.parametrize("image", ["../../Dockerfile", "/Dockerfile", "none/Dockerfile", "link", "away/Dockerfile"])
async def test_a_dockerfile_is_one_of_the_action(building: Bed, image: str) -> None:
    """A `/` at the beginning is the top of the action's folder's own path, which leads nowhere else."""
    building.actions.add("octo/d@v1", {"action.yml": ACTION.replace("Dockerfile", image), "real": "FROM tool:1\n"})
    root = building.actions.directory / "octo/d@v1"
    (root / "link").symlink_to("real")
    (root / "away").symlink_to("..")
    (building.actions.directory / "octo/Dockerfile").write_text("FROM tool:1\n")
    told = await building.run(USES)
    assert told.steps() == ["failure"], said(told)
    assert "cannot" in said(told)[0]


async def test_a_dockerfile_of_the_workspace_is_below_it(building: Bed) -> None:
    building.local("mine", {"action.yml": ACTION.replace("Dockerfile", "../../Dockerfile")})
    building.lender.files[f"{WORKSPACE}/../Dockerfile"] = "FROM tool:1\n"
    told = await building.run(job("uses: ./mine"))
    assert "it is not below the workspace" in said(told)[0]


async def test_a_cancelled_build_leaves_nothing(building: Bed) -> None:
    async def wait(task: Task) -> int:
        started.set()
        await asyncio.sleep(60)
        return 0

    started = asyncio.Event()
    building.lender.programs["wait"] = wait
    add(building, 'FROM tool:1\nRUN ["wait"]\n')
    async with building.live(USES) as run:
        await started.wait()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"
    assert left_nothing(building)
    assert built(building) == []


async def test_a_build_has_its_time(building: Bed) -> None:
    async def wait(task: Task) -> int:
        await asyncio.sleep(60)
        return 0

    building.lender.programs["wait"] = wait
    building.settings = type(building.settings)(build_minutes=0.001)
    add(building, 'FROM tool:1\nRUN ["wait"]\n')
    told = await building.run(USES)
    assert said(told)[-1] == "##[error]The action 'Run octo/d@v1' has timed out after 0.001 minutes."
    assert left_nothing(building)


async def test_a_root_that_is_too_large_is_refused(building: Bed) -> None:
    async def fill(task: Task) -> int:
        task.disk.open(b"/big", parents=True, truncate=True).content.write((1 << 20) + 1, b"x")
        return 0

    building.lender.programs["fill"] = fill
    building.settings = type(building.settings)(containers_limit_mib=1)
    add(building, 'FROM tool:1\nRUN ["fill"]\n')
    told = await building.run(USES)
    assert told.steps() == ["failure"]
    assert "the tree has a file of 1048578 bytes" in said(told)[-1]
    assert left_nothing(building)


async def test_empty_files_of_a_stage_take_room_too(building: Bed) -> None:
    async def fill(task: Task) -> int:
        for number in range(100):
            for directory in ("one", "two", "three"):
                task.disk.open(f"/many/{directory}/{number}".encode(), parents=True, truncate=True)
        return 0

    building.lender.programs["fill"] = fill
    building.settings = type(building.settings)(containers_limit_mib=1)
    add(building, 'FROM tool:1 AS build\nRUN ["fill"]\nFROM tool:1\nCOPY --from=build /many/* /x/\n')
    told = await building.run(USES)
    assert told.steps() == ["failure"]
    assert "Dockerfile:4: the tree has more than" in said(told)[-1]
    assert left_nothing(building)


async def test_secrets_are_masked_in_what_a_build_says(building: Bed) -> None:
    add(building, "FROM tool:1\nRUN echo the hidden word > /etc/made; echo the hidden word\n")
    told: Told = await building.run(USES, secrets={"WORD": "hidden"})
    assert "the *** word" in said(told)
    assert not any("hidden" in line for line in told.lines())


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz", "two of xz"])
async def test_an_archive_is_taken_apart_by_the_machine(building: Bed, kind: str) -> None:
    async def tar(task: Task) -> int:
        raw = b""
        while piece := await task.read():
            raw += piece
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                path = task.argv[-1].rstrip(b"/") + b"/" + member.name.encode()
                task.disk.open(path, parents=True, truncate=True).content.write(0, archive.extractfile(member).read())
        return 0

    building.lender.programs["tar"] = tar
    add(
        building,
        'FROM tool:1\nADD a.tar plain.gz /etc/\nCMD ["/etc/made", "/etc/plain.gz"]\n',
        a_tar="",
        plain_gz="no archive",
    )
    archive = building.actions.directory / "octo/d@v1/a.tar"
    mode = {"": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "two of xz": "w"}[kind]
    with tarfile.open(archive, mode) as made:
        info = tarfile.TarInfo("made")
        info.size = 4
        made.addfile(info, io.BytesIO(b"tape"))
    if kind == "two of xz":
        content = archive.read_bytes()
        archive.write_bytes(lzma.compress(content[:100]) + lzma.compress(content[100:]))
    told = await building.run(USES)
    assert said(told)[-2:] == ["/etc/made 644 0:0 tape", "/etc/plain.gz 644 0:0 no archive"]
