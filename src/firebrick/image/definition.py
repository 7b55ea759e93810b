"""Definitions of root images: TOML files a user can copy and edit. The name of an image is the name of its file.

    base.toml, toolchain.toml       shipped in this package
    <home>/images/definitions/      a user's own; a file here wins over a shipped one of the same name
    any path to a .toml file        for `firebrick image build ./mine.toml`

A definition is data: nothing in it is run on the host. It chooses packages, or names a Dockerfile or an OCI layout beside it.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from firebrick.image.errors import DefinitionError, UnknownImageError

# Part of every definition's digest: raise it when the builders make something else out of the same definition.
RECIPE: Final = 1

_SHIPPED: Final = Path(__file__).parent / "definitions"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FILE_LIMIT: Final = 256 << 10
_CONTEXT_FILES: Final = 100_000

PackageName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?\Z", max_length=200)
]
PathPattern = Annotated[str, Meta(pattern=r"^/[^\n\r\x00']*\Z", max_length=500)]
Suite = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*\Z", max_length=40)]
Component = Annotated[str, Meta(pattern=r"^[a-z][a-z-]*\Z", max_length=40)]
Reference = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=128)]
ArgumentName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=100)]


class Debian(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Packages of a Debian release. `exclude` and `include` are dpkg's path patterns: what is left out, and what stays all the same."""

    packages: Annotated[tuple[PackageName, ...], Meta(max_length=2000)]
    suite: Suite = "bookworm"
    components: tuple[Component, ...] = ("main",)
    exclude: tuple[PathPattern, ...] = ()
    include: tuple[PathPattern, ...] = ()


class Dockerfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Dockerfile and its context, paths relative to the definition."""

    path: str = "Dockerfile"
    context: str = "."
    arguments: dict[ArgumentName, str] = {}


class Oci(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An OCI image layout: a directory, or an archive of one, relative to the definition."""

    path: str
    reference: Reference = "latest"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    description: Annotated[str, Meta(max_length=500)] = ""
    debian: Debian | None = None
    dockerfile: Dockerfile | None = None
    oci: Oci | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What to make. `file` is where it was read; everything it names lies in the directory of that file. `limit_mib` is what layers may take,
    unpacked."""

    name: str
    file: Path
    description: str
    source: Debian | Dockerfile | Oci
    limit_mib: int = 65_536

    @property
    def kind(self) -> str:
        return type(self.source).__name__.lower()

    def digest(self) -> str:
        """SHA-256 over all that decides what comes out: the definition itself and the files it names. The name is not part of it."""
        total = hashlib.sha256(f"firebrick image recipe {RECIPE}\n{self.kind}\n".encode())
        total.update(msgspec.json.encode(self.source, order="deterministic"))
        for path in self._inputs():
            total.update(_fingerprint(path, self.file.parent))
        return total.hexdigest()

    def confined(self, relative: str) -> Path:
        """The path a definition names, which must stay inside the definition's own directory."""
        base = self.file.parent.resolve()
        path = (base / relative).resolve()
        if not path.is_relative_to(base):
            raise DefinitionError(
                f"definition {self.file} names {relative}, which is outside of its directory",
                hint=f"Put it below {base}.",
            )
        if not path.exists():
            raise DefinitionError(f"definition {self.file} names {relative}, which is not there")
        return path

    def _inputs(self) -> Iterator[Path]:
        match self.source:
            case Debian():
                return
            case Dockerfile(path=path, context=context):
                yield self.confined(path)
                yield from _walk(self.confined(context))
            case Oci(path=path):
                layout = self.confined(path)
                # The index of a layout names everything else by digest.
                yield layout / "index.json" if layout.is_dir() else layout


def _walk(directory: Path) -> Iterator[Path]:
    for count, path in enumerate(sorted(directory.rglob("*"))):
        if count >= _CONTEXT_FILES:
            raise DefinitionError(
                f"the context {directory} has more than {_CONTEXT_FILES} files", hint="Name a smaller directory."
            )
        yield path


def _fingerprint(path: Path, base: Path) -> bytes:
    """Name, permissions and content of one input, in 32 bytes."""
    try:
        status = path.lstat()
        one = hashlib.sha256(
            f"{path.relative_to(base.resolve())}\0{status.st_mode:o}\0".encode(errors="surrogateescape")
        )
        if path.is_symlink():
            one.update(str(path.readlink()).encode(errors="surrogateescape"))
        elif path.is_file():
            with path.open("rb") as file:
                one.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise DefinitionError(f"cannot read {path}: {error.strerror}") from error
    return one.digest()


def check_name(name: str) -> str:
    """The name, if it can name an image or a kernel: it becomes part of paths."""
    if not _NAME.fullmatch(name):
        raise DefinitionError(
            f"{name!r} cannot name an image",
            hint="Names are 1 to 63 lower case letters, digits, dots, dashes and underscores, and start with a letter or digit.",
        )
    return name


def load_definition(file: Path) -> Definition:
    """Read and check one definition. Raises DefinitionError, which says where and what was expected."""
    name = check_name(file.name.removesuffix(".toml"))
    try:
        if file.stat().st_size > _FILE_LIMIT:
            raise DefinitionError(f"definition {file} is larger than {_FILE_LIMIT >> 10} KiB")
        content = msgspec.convert(tomllib.loads(file.read_text()), _File)
    except OSError as error:
        raise DefinitionError(f"cannot read definition {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise DefinitionError(
            f"definition {file} is not valid: {error}", hint="`firebrick image show base` prints one that is."
        ) from error
    sources = [s for s in (content.debian, content.dockerfile, content.oci) if s is not None]
    if len(sources) != 1:
        raise DefinitionError(
            f"definition {file} must have exactly one of the tables [debian], [dockerfile] and [oci], and has {len(sources)}"
        )
    return Definition(name=name, file=file.absolute(), description=content.description, source=sources[0])


def find_definition(name: str, own: Path) -> Definition | None:
    """The definition of this name: the user's (in the directory `own`), else the shipped one, else None."""
    check_name(name)
    for directory in (own, _SHIPPED):
        if (file := directory / f"{name}.toml").is_file():
            return load_definition(file)
    return None


def resolve_definition(name_or_path: str | Path, own: Path) -> Definition | None:
    """What a user typed: a path to a .toml file, or a name. None: a name nobody has defined.

    Raises DefinitionError for a path whose name already belongs to another definition: two definitions would fight over one image."""
    text = str(name_or_path)
    if "/" not in text and not text.endswith(".toml"):
        return find_definition(text, own)
    definition = load_definition(Path(text).expanduser())
    other = find_definition(definition.name, own)
    if other is not None and other.file.resolve() != definition.file.resolve():
        raise DefinitionError(
            f"definition {definition.file} would make the image `{definition.name}`, which {other.file} defines",
            hint=f"Rename the file, or put it into {own} to replace that definition.",
        )
    return definition


def list_definitions(own: Path) -> list[str]:
    """Names of all definitions, shipped and the user's own."""
    return sorted(
        {file.stem for directory in (own, _SHIPPED) if directory.is_dir() for file in directory.glob("*.toml")}
    )


def unknown(name: str, own: Path) -> UnknownImageError:
    known = ", ".join(list_definitions(own))
    return UnknownImageError(
        f"there is no image and no definition `{name}`", hint=f"Definitions: {known}. Or give the path of a .toml file."
    )
