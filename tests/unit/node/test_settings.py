"""The [node] table of config.toml."""

import pytest

from firebrick.node.errors import SettingsError
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
    [
        ("[node\n", "cannot read"),
        ("[node]\nmachines = 0\n", "machines"),
        ("[node]\nmachinez = 3\n", "machinez"),
        ('[[node.allow]]\nto = "no name"\n', "neither a network"),
        ('[[node.allow]]\nto = "127.0.0.1"\n', "no machine reaches"),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_settings(file)


def test_the_advice_fits_the_mistake(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[node]\ncheckpoint = "often"\n')
    with pytest.raises(SettingsError) as raised:
        read_settings(file)
    assert raised.value.hint == "`checkpoint` is none, asked, step, or before:N with the number of a step."
    file.write_text("[node]\nspeed = 1\n")
    with pytest.raises(SettingsError) as raised:
        read_settings(file)
    assert raised.value.hint.startswith("It may hold actions, actions_allow, ")
    file.write_text("[node]\nmachines = 0\n")
    with pytest.raises(SettingsError) as raised:
        read_settings(file)
    assert raised.value.hint == "What each setting may be is in docs/reference/settings.md."
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="it is not text in UTF-8"):
        read_settings(file)
