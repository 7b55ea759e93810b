"""Archives with bytes changed at random: nothing but a refusal comes of them, and nothing beside the target."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.node.errors import StepError
from firebrick.node.results.archive import read_members, unpack


def _valid() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", b"text " * 50)
        archive.writestr("c", b"stored", zipfile.ZIP_STORED)
        archive.writestr("d\xe9", b"")
    return out.getvalue()


VALID = _valid()
CHANGES = st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, cut=st.integers(0, len(VALID)), shift=st.integers(0, 3))
def test_a_changed_archive_is_refused_or_stays_within_bounds(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, shift: int
):
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
    place = tmp_path / f"{abs(hash((tuple(changes), cut, shift)))}"
    place.mkdir(exist_ok=True)
    archive, target = place / "a.zip", place / "out"
    archive.write_bytes(bytes(data) if shift else bytes(data[:cut]))
    target.mkdir(exist_ok=True)
    try:
        members = read_members(archive)
        found = unpack(archive, target, members)
    except StepError:
        found, members = [], None
    if members is not None:
        assert sum(each.size for each in found) <= sum(member.size for member in members)
    assert {path.name for path in place.iterdir()} == {"a.zip", "out"}
