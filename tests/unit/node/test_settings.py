"""The [node] table of config.toml."""

import pytest

from firebrick.node.errors import NodeError
from firebrick.node.settings import NodeSettings, default_capacity, read_settings


def test_defaults_without_a_file(tmp_path):
    settings = read_settings(tmp_path / "config.toml")
    assert settings == NodeSettings()
    assert settings.capacity == default_capacity() >= 1


def test_the_table_is_read(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('port = 1\n[node]\nmachines = 7\n[node.labels]\n"ubuntu-*" = "noble"\n')
    settings = read_settings(file)
    assert settings.capacity == 7
    assert settings.labels == {"ubuntu-*": "noble"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[node\n", "cannot read"), ("[node]\nmachines = 0\n", "machines"), ("[node]\nmachinez = 3\n", "machinez")],
)
def test_mistakes_are_named(tmp_path, text, words):
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(NodeError, match=words):
        read_settings(file)
