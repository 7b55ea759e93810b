"""Kernels and root images: made from Debian packages, a Dockerfile or an OCI layout, kept by what is in them."""

from firebrick.image.errors import (
    BuildError,
    DamagedError,
    DefinitionError,
    HostLacksError,
    ImageError,
    InUseError,
    UnknownImageError,
    UnknownKernelError,
)
from firebrick.image.model import Image, ImageManifest, Kernel, KernelManifest, Package
from firebrick.image.progress import SILENT, Progress
from firebrick.image.store import ImageStore

__all__ = [
    "SILENT",
    "BuildError",
    "DamagedError",
    "DefinitionError",
    "HostLacksError",
    "Image",
    "ImageError",
    "ImageManifest",
    "ImageStore",
    "InUseError",
    "Kernel",
    "KernelManifest",
    "Package",
    "Progress",
    "UnknownImageError",
    "UnknownKernelError",
]
