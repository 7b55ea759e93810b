"""What can go wrong with images and kernels."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class ImageError(FirebrickError):
    """Anything that went wrong with an image or a kernel."""


class DefinitionError(ImageError):
    """A definition cannot be read, or asks for something that cannot be."""


class UnknownImageError(ImageError):
    """There is neither an image nor a definition of this name."""


class UnknownKernelError(ImageError):
    """There is no kernel of this name and none can be made."""


class BuildError(ImageError):
    """A tool failed while it made an image or a kernel. The message ends with its last words."""


class HostLacksError(ImageError):
    """The host lacks something a build needs: a program, a permission, a range of subordinate ids."""


class InUseError(ImageError):
    """The image cannot be removed: something still starts from it."""


class DamagedError(ImageError):
    """A file in the store is not what was put there."""
