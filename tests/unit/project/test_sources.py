"""Debian's source entries are made from the entries a host has, of Debian alone."""

from __future__ import annotations

from tools.debian_source import source_entries

STANZAS = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other.example/apt
Suites: stable
Components: main
Signed-By: /usr/share/keyrings/other.gpg
"""


def test_stanzas_of_debian_become_source_stanzas(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(STANZAS)
    _, stanzas = source_entries(tmp_path)
    assert "Types: deb-src\nURIs: http://mirror.example/debian" in stanzas
    assert "other.example" not in stanzas


def test_lines_of_debian_become_source_lines(tmp_path):
    (tmp_path / "sources.list").write_text(
        "# local\ndeb http://mirror.example/debian bookworm main\ndeb http://other.example/apt stable main\n"
    )
    lines, _ = source_entries(tmp_path)
    assert lines == "deb-src http://mirror.example/debian bookworm main\n"
