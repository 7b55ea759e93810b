"""What can go wrong between a repository and its tree on this host. Messages hold no credential."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class ForgeError(FirebrickError):
    """Anything that kept a source tree from arriving."""


class AddressError(ForgeError):
    """The address names no repository, or one that must not be asked for."""


class RefError(ForgeError):
    """A name that can be no branch or no commit."""


class RefNotFoundError(ForgeError):
    """The repository has no such branch or commit."""


class AccessError(ForgeError):
    """The repository does not exist, or not for us: forges do not tell these apart."""


class CloneLimitError(ForgeError):
    """The repository is larger, or slower, than allowed."""


class CloneError(ForgeError):
    """git could not get the tree, for another reason than the above."""
