"""Our own errors. Adapters translate what their libraries raise into these, with the original chained.

Permanent: the user must act; it becomes a condition and is not retried in a storm. Temporary: tried again later.
"""

from __future__ import annotations


class LubanError(Exception):
    """Base of all errors that cross a layer. `reason` is CamelCase, the message names the thing and the remedy."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class PermanentError(LubanError):
    """Trying again is of no use until the user changes something."""


class TemporaryError(LubanError):
    """Worth another try."""


class HostUnreachable(TemporaryError):
    """A host's libvirt daemon does not answer, or not in time."""


class FolderUnusable(TemporaryError):
    """The folder that a program keeps its files in cannot be written or read now."""


class ForeignDomain(PermanentError):
    """A domain with the name that we need exists and is not ours; it is left alone."""


class UnreadableObject(PermanentError):
    """An object of ours lacks what cannot be done without, or says it in a way that this version does not know."""


class NotFound(LubanError):
    """An object of the Kubernetes API is not there."""


class Conflict(TemporaryError):
    """An object of the Kubernetes API changed under us, or exists already."""


class NotLeader(TemporaryError):
    """Another operator may be the one that acts: nothing was done."""


class ConfigurationRefused(PermanentError):
    """httpd -t refused a configuration; the message holds httpd's own words."""


def without_host(message: str, host: str) -> str:
    """What an adapter says of a host without the name that it begins with, for places that name the host themselves."""
    return message.removeprefix(f"host {host}: ")
