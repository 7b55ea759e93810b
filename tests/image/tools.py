"""What the tests of real builds share: a progress that remembers, small layouts made by hand, and a look into squashfs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from firebrick.home import Home

BUSYBOX = Path("/bin/busybox")
_REF = "org.opencontainers.image.ref.name"


class Recorder:
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str, *, total: float | None = None) -> None:
        self.stages.append(text)

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None: ...


def entries(image: Path) -> dict[str, tuple[str, str, int]]:
    """What is in a squashfs: path -> (mode as `ls` shows it, `uid/gid`, size)."""
    out = subprocess.run(["unsquashfs", "-lln", image], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=5) for line in out.splitlines()]
    return {
        row[5].removeprefix("squashfs-root").split(" -> ")[0] or "/": (
            row[0],
            row[1],
            int(row[2]) if row[2].isdigit() else 0,
        )
        for row in rows
        if len(row) == 6
    }


def content(image: Path, path: str) -> bytes:
    return subprocess.run(["unsquashfs", "-cat", image, path], capture_output=True, check=True).stdout


def layer(*members: tuple[str, bytes | None, int, int] | tarfile.TarInfo) -> bytes:
    """A layer as a tar archive: (path, content or None for a directory, mode, owner), or a ready header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data, mode, owner = member
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = mode, owner, owner
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def symlink(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def make_layout(
    directory: Path, layers: list[bytes], reference: str = "latest", config: dict[str, object] | None = None
) -> Path:
    """An OCI layout with one image, written from the specification. `config` is how it is run."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    described = [blob(data, "layer.v1.tar") for data in layers]
    whole = {
        "architecture": "amd64", "os": "linux", "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in described]},
    }  # fmt: skip
    manifest = {"schemaVersion": 2, "config": blob(json.dumps(whole).encode(), "config.v1+json"), "layers": described}
    named = blob(json.dumps(manifest).encode(), "manifest.v1+json") | {"annotations": {_REF: reference}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def define_oci(directory: Path, layers: list[bytes], name: str = "vendor") -> Path:
    """A definition beside a layout; an old layout is replaced."""
    shutil.rmtree(directory / "layout", ignore_errors=True)
    make_layout(directory / "layout", layers)
    file = directory / f"{name}.toml"
    file.write_text('description = "somebody else\'s"\n[oci]\npath = "layout"\n')
    return file


def staging_of(home: Home) -> list[Path]:
    return list((home.images / "staging").glob("*"))
