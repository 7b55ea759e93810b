"""`firebrick image` and `firebrick kernel`: what machines start from."""

from __future__ import annotations

import asyncio
import json as json_format
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firebrick.cli.errors import UsageError
from firebrick.cli.progress import show_progress
from firebrick.cli.terminal import duration, size, tame, tame_block
from firebrick.home import Home
from firebrick.image import Image, ImageStore, KernelManifest, UnknownImageError
from firebrick.image.definition import resolve_definition, unknown

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build, list and remove root images.")
kernel_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build and list kernels.")

Json = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the tools say.")]
Refresh = Annotated[bool, typer.Option("--refresh", help="Make it anew, from the packages Debian has now.")]


def _store() -> ImageStore:
    return ImageStore(Home.find())


@app.command("build")
def build_images(
    names: Annotated[
        list[str], typer.Argument(help="Names of definitions, or paths of .toml files.", metavar="NAME...")
    ],
    refresh: Refresh = False,
    verbose: Verbose = False,
) -> None:
    """Build images that are missing or whose definition has changed. Without root."""
    for name in names:
        started = time.monotonic()
        with show_progress(Path(name).stem, verbose=verbose) as progress:
            image = asyncio.run(_store().ensure_image(name, progress=progress, refresh=refresh))
        took = duration(time.monotonic() - started)
        typer.echo(f"{image.name} {image.digest[:12]} {size(image.size)} ({took})")


@app.command("ls")
def list_images(json: Json = False) -> None:
    """List the images of this host, and the definitions that have none yet."""
    store = _store()
    images = store.list_images()
    if json:
        typer.echo(json_format.dumps([_summary(image) for image in images], indent=2))
        return
    table = _table("image", "digest", "size", "built", "what")
    for image in images:
        table.add_row(
            _said(image.name),
            image.digest[:12],
            size(image.size),
            _ago(image.manifest.created),
            _said(image.manifest.description),
        )
    for name in sorted(set(store.list_definitions()) - {image.name for image in images}):
        table.add_row(_said(name), "", "", "[dim]not yet[/]", "")
    _print(table)


@app.command("inspect")
def inspect_image(
    name: Annotated[str, typer.Argument(help="Name or digest of an image.")],
    json: Json = False,
    packages: Annotated[bool, typer.Option("--packages", help="List the packages in it.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read it all and compare with its digest.")] = False,
) -> None:
    """Show what an image is made of, and optionally that it still is what it was."""
    store = _store()
    image = _find(store, name)
    if verify:
        asyncio.run(store.verify_image(image))
    users = store.users(image.digest)
    if json:
        everything = _summary(image) | {
            "users": [str(user) for user in users],
            "manifest": msgspec.to_builtins(image.manifest),
        }
        typer.echo(json_format.dumps(everything, indent=2))
        return
    rows = (
        _describe(image)
        | {"used by": ", ".join(map(str, users)) or "nothing"}
        | ({"verified": "its digest is right"} if verify else {})
    )
    for key, value in rows.items():
        typer.echo(tame(f"{key + ':':<12} {value}", colour=False))
    if packages:
        for package in image.manifest.packages:
            typer.echo(tame(f"  {package.name} {package.version} {package.architecture}", colour=False))


@app.command("rm")
def remove_images(
    names: Annotated[list[str], typer.Argument(help="Names or digests of images.", metavar="NAME...")],
) -> None:
    """Remove images. One that something starts from stays, with an error."""
    for name in names:
        asyncio.run(_store().remove_image(name))
        typer.echo(f"removed {name}")


@app.command("prune")
def prune_images() -> None:
    """Remove images that have lost their name to a newer one and that nothing uses, and what broken builds have left."""
    gone = asyncio.run(_store().prune_images())
    for image in gone:
        typer.echo(f"removed {image.digest[:12]} ({size(image.size)})")
    if not gone:
        typer.echo("nothing to remove")


@app.command("show")
def show_definition(
    name: Annotated[str, typer.Argument(help="Name of a definition, or path of a .toml file.")],
) -> None:
    """Print a definition, to start one of your own from: `firebrick image show base > mine.toml`."""
    store = _store()
    definition = resolve_definition(name, store.definitions)
    if definition is None:
        raise unknown(name, store.definitions)
    text = definition.file.read_text()
    typer.echo(tame_block(text) if sys.stdout.isatty() else text, nl=False)


@kernel_app.command("build")
def build_kernel(
    tuned: Annotated[
        bool,
        typer.Option("--tuned", help="Build our own from Debian's kernel source: some minutes, starts twice as fast."),
    ] = False,
    refresh: Refresh = False,
    verbose: Verbose = False,
) -> None:
    """Fetch Debian's cloud kernel, or build the tuned one, unless it is there."""
    name = "tuned" if tuned else "debian"
    started = time.monotonic()
    with show_progress(f"kernel {name}", verbose=verbose) as progress:
        kernel = asyncio.run(_store().ensure_kernel(name, progress=progress, refresh=refresh))
    typer.echo(f"{name} {kernel.version} {kernel.digest[:12]} ({duration(time.monotonic() - started)})")


@kernel_app.command("ls")
def list_kernels(json: Json = False) -> None:
    """List the kernels of this host."""
    kernels = _store().list_kernels()
    if json:
        typer.echo(json_format.dumps([_kernel_summary(name, manifest) for name, manifest in kernels.items()], indent=2))
        return
    table = _table("kernel", "version", "digest", "made", "from")
    for name, manifest in kernels.items():
        table.add_row(
            name, _said(manifest.version), manifest.digest[:12], _ago(manifest.created), _said(manifest.package)
        )
    _print(table)
    if not kernels:
        typer.echo("There is none yet: `firebrick kernel build` makes one.")


def _find(store: ImageStore, name: str) -> Image:
    if not name or "/" in name:
        raise UsageError(f"{name!r} is no name of an image", hint="`firebrick image ls` lists them.")
    image = store.find_image(name)
    if image is None:
        raise UnknownImageError(
            f"there is no image `{name}`",
            hint=f"`firebrick image build {name}` makes it, if there is such a definition.",
        )
    return image


def _summary(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "digest": image.digest,
        "path": str(image.path),
        "size": image.size,
        "created": image.manifest.created,
        "description": image.manifest.description,
    }


def _kernel_summary(name: str, manifest: KernelManifest) -> dict[str, Any]:
    return {"name": name, **msgspec.to_builtins(manifest)}


def _describe(image: Image) -> dict[str, str]:
    manifest = image.manifest
    return {
        "name": image.name,
        "what": manifest.description,
        "digest": f"sha256:{manifest.digest}",
        "definition": f"{manifest.kind}, sha256:{manifest.definition}",
        "size": f"{size(manifest.size)} ({manifest.size} bytes)",
        "built": _ago(manifest.created),
        "packages": f"{len(manifest.packages)}",
        "made with": "; ".join(manifest.tools.values()),
        "file": str(image.path),
    }


def _said(text: str) -> Text:
    """What definitions say, as text and nothing else: no markup, no sequences."""
    return Text(tame(text, colour=False))


def _ago(created: float) -> str:
    return f"{duration(max(0.0, time.time() - created))} ago"


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading not in ("what", "from"))
    return table


def _print(table: Table) -> None:
    """As wide as it needs to be where nobody looks, because a program may."""
    console = Console()
    (console if console.is_terminal else Console(width=250)).print(table)
