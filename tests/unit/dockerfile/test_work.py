"""Stages, and what is to be done for each."""

from __future__ import annotations

import pytest

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import Dockerfile, read_dockerfile
from firebrick.dockerfile.work import Config, Copy, MakeDirectory, Run, Work, copied_from, work_of


def parse(text: str) -> Dockerfile:
    return read_dockerfile(text.encode(), platform="linux/amd64")


def work(text: str, base: Config = Config(), stage: int = -1) -> Work:  # noqa: B008 - frozen
    file = parse(text)
    return work_of(file, stage % len(file.stages), base)


def test_stages() -> None:
    file = parse(
        "ARG V=1\nARG W=$V.2\nFROM a:$W AS One\nFROM scratch\nFROM --platform=$TARGETPLATFORM one as three\n"
        "COPY --from=0 a b\nCOPY --from=ONE a b\nCOPY --from=1 a b\nCOPY --from=three a b\nCOPY --from=7 a b\nCOPY --from=\u00b2 a b\n"
    )
    assert [(stage.name, stage.base) for stage in file.stages] == [("one", "a:1.2"), ("", "scratch"), ("three", 0)]
    assert copied_from(file, 2) == {0, 1, "three", "7", "\u00b2"}, (
        "a stage is none of itself, nor of what comes after it"
    )


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("ARG A", 0, "no FROM"),
        ("FROM", 1, "needs an image"),
        ("FROM a b", 1, "needs an image"),
        ("FROM a AS", 1, "needs an image"),
        ("FROM $none", 1, "is empty"),
        ("FROM a AS scratch", 1, "cannot name a stage"),
        ("FROM a AS 1", 1, "cannot name a stage"),
        ("FROM --platform=linux/s390x a", 1, "machines here are linux/amd64"),
        ("FROM --other=x a", 1, "FROM --other is not supported"),
        ("ENV A=1\nFROM a", 1, "besides ARG must be FROM"),
        ("FROM a AS x\nONBUILD RUN y\nFROM x", 3, "ONBUILD"),
        ("FROM a\n" * 51, 51, "more than 50 stages"),
        ("ARG a\nARG " + " ".join(f"A{n}" for n in range(500)) + "\nFROM a", 2, "more than 500 variables"),
    ],
)
def test_what_is_no_stage(text: str, line: int, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as caught:
        parse(text)
    assert caught.value.line == line


def test_variables_of_a_stage() -> None:
    done = work(
        "ARG OUT=out\nFROM a\nARG OUT\nARG TARGETARCH IN=$OUT\nARG KIND=arg\nENV KIND=env PATH=/x:$PATH\nENV OLD two  words\nRUN x",
        Config(env={"PATH": "/bin"}),
    )
    [run] = done.operations
    assert isinstance(run, Run)
    assert run.env == {
        "OUT": "out",
        "TARGETARCH": "amd64",
        "IN": "out",
        "KIND": "env",
        "PATH": "/x:/bin",
        "OLD": "two  words",
    }
    assert done.config.env == {"PATH": "/x:/bin", "KIND": "env", "OLD": "two  words"}, "arguments are gone afterwards"


def test_how_it_is_run() -> None:
    base = Config(entrypoint=("old",), command=("c",), user="u", directory="/d")
    assert work("FROM a\nLABEL x=y\nEXPOSE 80\nVOLUME /x\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nMAINTAINER me\nONBUILD RUN x", base) == Work(
        operations=(), shown=(), config=base
    )  # fmt: skip
    done = work('FROM a\nSHELL ["bash", "-c"]\nENTRYPOINT run it\nUSER $TARGETARCH:x\nWORKDIR in\n', base)
    assert done.config == Config(entrypoint=("bash", "-c", "run it"), command=None, user=":x", directory="/d/in")
    assert work('FROM a\nCMD ["x"]\nENTRYPOINT []', base).config.command == ("x",)


def test_what_is_run() -> None:
    done = work(
        'FROM a\nWORKDIR /w\nWORKDIR ../v\nUSER me\nRUN a $b\nRUN ["a", "$b"]\nRUN <<E\nx\ny\nE\nRUN cat <<E | z\nx\nE\n'
    )
    assert [one.path for one in done.operations if isinstance(one, MakeDirectory)] == ["/w", "/v"]
    runs = [one for one in done.operations if isinstance(one, Run)]
    assert [run.argv for run in runs] == [
        ("/bin/sh", "-c", "a $b"),
        ("a", "$b"),
        ("/bin/sh", "-c", "x\ny\n"),
        ("/bin/sh", "-c", "cat <<E | z\nx\nE\n"),
    ]
    assert {(run.user, run.directory) for run in runs} == {("me", "/v")}
    assert [run.line for run in runs] == [5, 6, 7, 11]


def test_mounts_that_may_be_empty() -> None:
    text = "FROM a\nENV D=/d\nWORKDIR /w\nRUN --mount=type=cache,id=x,target=$D --mount=type=tmpfs,dst=in --network=default make"
    run = work(text).operations[-1]
    assert isinstance(run, Run)
    assert (run.passing, run.argv[-1]) == (("/d", "/w/in"), "make")


@pytest.mark.parametrize(
    ("line", "sources", "target"),
    [
        ("COPY a b", ("a",), "/w/b"),
        ("COPY ./a/../b /c/", ("b",), "/c/"),
        ("COPY /a .", ("a",), "/w/"),
        ("COPY . /", (".",), "/"),
        ('COPY ["a b", "c d/"]', ("a b",), "/w/c d/"),
        ("ADD --chmod=0644 'x y' $T/", ("x y",), "/target/"),
        ("COPY --from=image /a//b ../c", ("/a/b",), "/c"),
        ("COPY --from=image ../../a c", ("/a",), "/w/c"),
    ],
)
def test_what_is_copied(line: str, sources: tuple[str, ...], target: str) -> None:
    copy = work(f"FROM a\nENV T=/target\nWORKDIR /w\n{line}\n").operations[-1]
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target, copy.unpacks) == (sources, target, line.startswith("ADD"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("COPY a", "needs a source and a target"),
        ("COPY ../a b", "outside"),
        ("COPY a/../../b c", "outside"),
        ("ADD ../a b", "outside"),
        ("COPY a b c", "must end in /"),
        ("ADD git@host:x y", "from an address"),
        ("ADD HTTPS://x/y z", "from an address"),
        ("ADD --from=x y z", "ADD --from is not supported"),
        ("COPY --parents x y", "COPY --parents is not supported"),
        ("COPY --chmod=u+x x y", "the mode 'u\\+x' is not supported"),
        ("COPY --from= x y", "--from is not supported"),
        ("RUN --mount=type=bind,target=/x y", "RUN --mount=type=bind,target=/x is not supported"),
        ("RUN --mount=type=secret,id=x y", "is not supported"),
        ("RUN --mount=type=cache y", "is not supported"),
        ("RUN --mount=target=/x y", "is not supported"),
        ("RUN --mount=type=cache,target=/x,from=y z", "is not supported"),
        ("RUN --mount=type=cache,target=/x/.. z", "below /"),
        ("RUN <<E\n#!/usr/bin/python\nE", "line of its own for its program"),
        ("RUN []", "says nothing"),
        ("WORKDIR $none", "is no path"),
        ("ENV A", "needs names"),
        ("ENV A=1 B", "needs names"),
        ("ENV =1", "no name of a variable"),
        ("ARG", "says nothing"),
        ("ARG a-b", "no name of an argument"),
        ("SHELL bash", "needs a list"),
        ("FETCH x", "no instruction FETCH"),
        (f"COPY {'x' * 5000} y", "is no path"),
        ("ENV " + " ".join(f"A{n}=x" for n in range(501)), "more than 500 variables"),
        ("\n".join(f"ENV A{n}={'x' * 60_000}" for n in range(4)) + "\nENV B=$A0", "more than 256 KiB"),
    ],
)
def test_what_cannot_be_done(line: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as caught:
        work(f"FROM a\n{line}\n")
    assert caught.value.line >= 2


def test_variables_that_name_each_other_end() -> None:
    lines = "".join(f"ENV A{n + 1}=$A{n}$A{n}$A{n}$A{n}\n" for n in range(100))
    with pytest.raises(DockerfileError, match="more than 64 KiB"):
        work(f"FROM a\nENV A0=xxxxxxxx\n{lines}")


def test_words_that_are_long_end_too() -> None:
    with pytest.raises(DockerfileError, match="together"):
        work(f"FROM a\nENV A={'x' * 4000}\n" + ("COPY " + "$A " * 300 + "/d/\n") * 20)
