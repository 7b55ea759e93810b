"""Definitions are data from people who may be careless or hostile: what is not understood is refused, with the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.image.definition import (
    Debian,
    Dockerfile,
    Oci,
    check_name,
    find_definition,
    list_definitions,
    load_definition,
    resolve_definition,
)
from firebrick.image.errors import DefinitionError

GOOD = '[debian]\npackages = ["git", "libc6:i386", "curl=7.88.1-10+deb12u5"]\n'


def write(directory: Path, text: str, name: str = "mine") -> Path:
    file = directory / f"{name}.toml"
    file.write_text(text)
    return file


def test_the_name_is_the_name_of_the_file(tmp_path: Path):
    definition = load_definition(write(tmp_path, 'description = "d"\n' + GOOD, "my-image.2"))
    assert (definition.name, definition.description, definition.kind) == ("my-image.2", "d", "debian")
    assert isinstance(definition.source, Debian)
    assert definition.source.suite == "bookworm"


@pytest.mark.parametrize("name", ["base", "toolchain"])
def test_shipped_definitions_are_valid(tmp_path: Path, name: str):
    definition = find_definition(name, tmp_path)
    assert definition is not None
    assert "ca-certificates" in definition.source.packages
    assert definition.description


def test_a_users_definition_wins_over_a_shipped_one(tmp_path: Path):
    write(tmp_path, GOOD, "base")
    found = find_definition("base", tmp_path)
    assert found is not None
    assert found.file == tmp_path / "base.toml"
    assert list_definitions(tmp_path) == ["base", "toolchain"]


def test_a_name_nobody_defined_is_none(tmp_path: Path):
    assert resolve_definition("nothing", tmp_path) is None


def test_a_path_may_not_take_the_name_of_another_definition(tmp_path: Path):
    file = write(tmp_path, GOOD, "base")
    with pytest.raises(DefinitionError, match=r"which .* defines") as error:
        resolve_definition(str(file), tmp_path / "own")
    assert "Rename the file" in error.value.hint
    assert resolve_definition(str(file), tmp_path) is not None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "Upper", "a\n", "é", "x" * 64, "a b", "a\0b"])
def test_names_that_cannot_be_part_of_a_path_are_refused(name: str):
    with pytest.raises(DefinitionError):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "exactly one of the tables"),
        (GOOD + '[oci]\npath = "x"\n', "has 2"),
        ("[debian]\n", "missing required field `packages`"),
        ('[debian]\npackages = ["git"]\nsuit = "x"\n', "unknown field `suit`"),
        ('[debian]\npackages = "git"\n', r"Expected `array`, got `str` - at `\$.debian.packages`"),
        ("[debian\n", "at line 1"),
        ('[debian]\npackages = ["--customize-hook=touch /x"]\n', r"at `\$.debian.packages\[0\]`"),
        ('[debian]\npackages = ["git,curl"]\n', "regex"),
        ('[debian]\npackages = ["../x"]\n', "regex"),
        ('[debian]\npackages = ["git\\n"]\n', "regex"),
        ('[debian]\npackages = []\nsuite = "-o Dir=x"\n', "regex"),
        ('[debian]\npackages = []\ncomponents = ["main [trusted=yes]"]\n', "regex"),
        ("[debian]\npackages = []\nexclude = [\"/x' ; touch /x '\"]\n", "regex"),
        ('[dockerfile]\narguments = { "a b" = "c" }\n', "regex"),
        ('[oci]\npath = "x"\nreference = "../../x"\n', "regex"),
    ],
)
def test_what_is_not_valid_says_where(tmp_path: Path, text: str, says: str):
    with pytest.raises(DefinitionError, match=says) as error:
        load_definition(write(tmp_path, text))
    assert str(tmp_path / "mine.toml") in str(error.value)


def test_a_file_that_is_not_there_and_one_that_is_too_large(tmp_path: Path):
    with pytest.raises(DefinitionError, match="No such file"):
        load_definition(tmp_path / "no.toml")
    with pytest.raises(DefinitionError, match="larger than"):
        load_definition(write(tmp_path, "#" * (300 << 10)))


@pytest.mark.parametrize("path", ["..", "../secret", "/etc", "link", "a/../../secret"])
def test_what_a_definition_names_lies_beside_it(tmp_path: Path, path: str):
    (tmp_path / "secret").write_text("x")
    directory = tmp_path / "d"
    (directory / "a").mkdir(parents=True)
    (directory / "link").symlink_to(tmp_path / "secret")
    definition = load_definition(write(directory, f'[oci]\npath = "{path}"\n'))
    with pytest.raises(DefinitionError, match="outside of its directory"):
        definition.confined(path)
    with pytest.raises(DefinitionError, match="outside of its directory"):
        definition.digest()


def test_the_digest_is_of_what_comes_out_not_of_name_or_words(tmp_path: Path):
    one = load_definition(write(tmp_path, GOOD, "one")).digest()
    assert load_definition(write(tmp_path, f'description = "other"\n# comment\n{GOOD}', "two")).digest() == one
    assert load_definition(write(tmp_path, GOOD.replace("git", "hg"), "three")).digest() != one


def test_the_digest_of_a_dockerfile_covers_its_context(tmp_path: Path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "data").write_text("1")
    definition = load_definition(write(tmp_path, "[dockerfile]\n"))
    assert isinstance(definition.source, Dockerfile)
    seen = [definition.digest()]
    (tmp_path / "data").write_text("2")
    seen.append(definition.digest())
    (tmp_path / "data").chmod(0o755)
    seen.append(definition.digest())
    (tmp_path / "data").rename(tmp_path / "date")
    seen.append(definition.digest())
    (tmp_path / "link").symlink_to("date")
    seen.append(definition.digest())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    seen.append(definition.digest())
    assert len(set(seen)) == len(seen)
    assert definition.digest() == seen[-1]


def test_the_digest_of_a_layout_is_that_of_its_index(tmp_path: Path):
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "index.json").write_text("{}")
    definition = load_definition(write(tmp_path, '[oci]\npath = "layout"\n'))
    assert isinstance(definition.source, Oci)
    before = definition.digest()
    (layout / "index.json").write_text('{"manifests": []}')
    assert definition.digest() != before
