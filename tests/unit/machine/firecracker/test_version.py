import pytest

from firebrick.machine import HostError, SpecError
from firebrick.machine.firecracker.version import Fault, Feature, Version


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.12.1", Version(1, 12, 1)), ("v1.16.0\n", Version(1, 16, 0)), ("1.17.0-dev", Version(1, 17, 0))],
)
def test_versions_are_read(text, version):
    assert Version.parse(text) == version


@pytest.mark.parametrize("text", ["", "1.2", "firecracker", "1.2.3.4", "1.2.3-" + "x" * 100, "99999.1.1"])
def test_what_is_no_version_is_told(text):
    with pytest.raises(HostError, match="cannot tell the version"):
        Version.parse(text)


def test_builds_between_releases_keep_their_name():
    assert str(Version.parse("v1.17.0-dev")) == "1.17.0-dev"


def test_every_feature_has_a_first_release_and_is_had_from_then_on():
    for feature in Feature:
        before = Version(feature.since.major, feature.since.minor - 1, 99)
        feature.since.require(feature)
        assert Version(1, 99).has(feature)
        with pytest.raises(SpecError, match=f"{feature.since.major}.{feature.since.minor} is the first"):
            before.require(feature)


def test_every_fault_begins_and_ends():
    for fault in Fault:
        assert fault.since < fault.until
        assert Version(fault.since.major, fault.since.minor, fault.since.patch).goes_wrong(fault)
        assert not fault.until.goes_wrong(fault)
    assert Version(1, 12, 1).goes_wrong(Fault.DAMAGED_LARGE_DIFF)
    assert not Version(1, 15, 0).goes_wrong(Fault.DAMAGED_LARGE_DIFF)
    assert [
        v.goes_wrong(Fault.DEAF_AFTER_PAUSE) for v in (Version(1, 15, 1), Version(1, 16, 0), Version(1, 16, 1))
    ] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("minor", "major"), [(12, 6), (13, 8), (14, 8), (15, 9), (16, 10), (17, 11), (50, None)])
def test_formats_of_snapshots(minor, major):
    assert Version(1, minor).snapshot_format == major
