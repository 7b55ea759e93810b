from __future__ import annotations

import pytest

from firebrick.image.apt import KEYRING, Archive, source_lines
from firebrick.image.errors import HostLacksError

HERE = [
    Archive("http://mirror/debian/", "bookworm", "Debian"),
    Archive("http://mirror/debian/", "bookworm-updates", "Debian"),
    Archive("http://mirror/security/", "bookworm-security", "Debian-Security"),
    Archive("http://elsewhere/apt/", "stable", "Vendor"),
]


def test_the_hosts_own_archives_of_the_release_are_used_and_no_others():
    assert source_lines(HERE, "bookworm", ("main",), None) == [
        f"deb [signed-by={KEYRING}] http://mirror/debian/ bookworm main",
        f"deb [signed-by={KEYRING}] http://mirror/debian/ bookworm-updates main",
        f"deb [signed-by={KEYRING}] http://mirror/security/ bookworm-security main",
    ]


def test_sources_of_packages_come_from_the_same_archives_and_no_others():
    assert source_lines(HERE, "bookworm", ("main",), None, "deb-src") == [
        f"deb-src [signed-by={KEYRING}] http://mirror/debian/ bookworm main",
        f"deb-src [signed-by={KEYRING}] http://mirror/debian/ bookworm-updates main",
        f"deb-src [signed-by={KEYRING}] http://mirror/security/ bookworm-security main",
    ]


def test_another_release_comes_from_the_same_archives():
    assert source_lines(HERE, "trixie", ("main", "contrib"), None) == [
        f"deb [signed-by={KEYRING}] http://mirror/debian/ trixie main contrib",
        f"deb [signed-by={KEYRING}] http://mirror/debian/ trixie-updates main contrib",
        f"deb [signed-by={KEYRING}] http://mirror/security/ trixie-security main contrib",
    ]


def test_a_mirror_of_the_users_choice_wins():
    lines = source_lines(HERE, "bookworm", ("main",), "http://mine")
    assert lines == [
        f"deb [signed-by={KEYRING}] http://mine {release} main" for release in ("bookworm", "bookworm-updates")
    ]


def test_a_host_that_knows_no_debian_is_told_what_to_do():
    with pytest.raises(HostLacksError, match="has Debian bookworm") as error:
        source_lines(HERE[3:], "bookworm", ("main",), None)
    assert "FIREBRICK_DEBIAN_MIRROR" in error.value.hint
