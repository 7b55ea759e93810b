"""The limit of open files is raised to what machines may take, and never lowered."""

from __future__ import annotations

import resource

import pytest

from firebrick.node.descriptors import allow_descriptors

ANY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "machines", "after"),
    [
        ((1024, 524288), 8, (1024 + 8 * 392, 524288)),
        ((1024, ANY), 1, (1024 + 392, ANY)),
        ((1024, 2048), 64, (2048, 2048)),
        ((4096, 4096), 64, None),
        ((20000, 20000), 8, None),
        ((ANY, ANY), 8, None),
    ],
)
def test_the_limit(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], machines: int, after: tuple[int, int]):
    said = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: said.append((which, to)))
    allow_descriptors(machines)
    assert said == ([(resource.RLIMIT_NOFILE, after)] if after else [])
