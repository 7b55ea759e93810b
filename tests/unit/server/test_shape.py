"""What a request may hold."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from firebrick.server.record import BuildRequest
from firebrick.server.shape import BuildBody

URL = "https://example.org/o/n"


def test_what_clients_of_the_pipeline_send() -> None:
    body = BuildBody.model_validate({"repo_url": URL, "branch": "main", "commit": "A" * 40})
    assert body.request() == BuildRequest(repo_url=URL, branch="main", commit="a" * 40)


@pytest.mark.parametrize("absent", [None, "", "HEAD"])
def test_the_ways_to_say_not_given(absent: Any) -> None:
    body = BuildBody.model_validate(
        {"repo_url": URL, "branch": absent, "commit": absent, "command": absent, "workflow": absent}
    )
    assert body.request() == BuildRequest(repo_url=URL)


@pytest.mark.parametrize(
    "fields",
    [
        {"repo_url": ""},
        {"repo_url": 7},
        {"repo_url": "x" * 2049},
        {"branch": "x" * 256},
        {"branch": ["main"]},
        {"vcpus": 0},
        {"vcpus": 65},
        {"vcpus": 1.5},
        {"memory_mib": 1},
        {"memory_mib": 1 << 30},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"timeout_s": 1e9},
        {"workflow": "/etc/passwd"},
        {"workflow": "../x.yml"},
        {"workflow": "a//b"},
        {"command": "x" * 8193},
        {"command": "a\0b"},
        {"artifacts": ["/etc/*"]},
        {"artifacts": ["../*"]},
        {"artifacts": [""]},
        {"artifacts": ["x"] * 65},
        {"artifacts": "dist/*"},
        {"image": "../x"},
        {"image": "a b"},
        {"unknown": 1},
    ],
)
def test_what_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BuildBody.model_validate({"repo_url": URL} | fields)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    )
)
def test_any_json_is_a_request_or_an_error(value: Any) -> None:
    with contextlib.suppress(ValidationError):
        BuildBody.model_validate(value).request()
