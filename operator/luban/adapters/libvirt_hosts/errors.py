"""What libvirt's errors mean to us. The only place that looks at libvirt's error codes.

libvirt has about 110 codes, and many failures share VIR_ERR_INTERNAL_ERROR; so a step that knows better says what a
failure of it means (`otherwise`), and only codes with one meaning everywhere are in the table.
"""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, ParamSpec, TypeVar

import libvirt

from luban.errors import ForeignDomain, HostUnreachable, LubanError, PermanentError, TemporaryError
from luban.ports import HostRef

P = ParamSpec("P")
T = TypeVar("T")


class NotReached(HostUnreachable):
    """Not even a TCP connection came about: to look again soon costs next to nothing."""


class Translation(NamedTuple):
    """Class and reason of the error that a libvirt error becomes."""

    error: type[LubanError]
    reason: str


UNREACHABLE = Translation(HostUnreachable, "HostUnreachable")
REFUSED = Translation(PermanentError, "DomainRefused")
NO_NETWORK = Translation(PermanentError, "NetworkNotFound")
FULL = Translation(PermanentError, "StoragePoolFull")
START_FAILED = Translation(TemporaryError, "StartFailed")
CALL_FAILED = Translation(TemporaryError, "LibvirtError")

_GONE = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_NO_DOMAIN_METADATA,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_STORAGE_POOL,
        libvirt.VIR_ERR_NO_STORAGE_VOL,
    }
)
_UNSUPPORTED = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    }
)
_BY_CODE = {
    libvirt.VIR_ERR_RPC: UNREACHABLE,
    libvirt.VIR_ERR_INVALID_CONN: UNREACHABLE,
    libvirt.VIR_ERR_NO_NETWORK: NO_NETWORK,
    libvirt.VIR_ERR_NO_STORAGE_POOL: Translation(PermanentError, "PoolNotFound"),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: REFUSED,
    libvirt.VIR_ERR_XML_ERROR: REFUSED,
    libvirt.VIR_ERR_XML_DETAIL: REFUSED,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: REFUSED,
    libvirt.VIR_ERR_CPU_INCOMPATIBLE: REFUSED,
    libvirt.VIR_ERR_ACCESS_DENIED: REFUSED,
}
_BY_DOMAIN = {libvirt.VIR_FROM_RPC: UNREACHABLE, libvirt.VIR_FROM_CPU: REFUSED}
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z ")
"""QEMU dates its messages; ours go into a status, which is written only when it changes."""
LONGEST_QUOTE = 400
"""Characters of what libvirt says. What helper programs print comes with it, usage and all."""
_BRIDGE_GONE = re.compile(r"(?:MTU on|bridge) [\"'`]*([^\s\"'`:]+)\b[^:]*: No such device", re.IGNORECASE)
"""Words of libvirt and of qemu-bridge-helper for a bridge that is not there."""
_BRIDGE_FORBIDDEN = "access denied by acl file"
_NO_SPACE = ("No space left on device", "Not enough free space")


def _errno(error: libvirt.libvirtError) -> int:
    """The operating system's error number, where libvirt passes one on; 0: none."""
    is_system = error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR
    return int(error.get_int1()) if is_system else 0


def _says_full(error: libvirt.libvirtError) -> bool:
    """qemu-img's and the pool driver's own failures reach us as text only."""
    return _errno(error) == errno.ENOSPC or any(words in str(error) for words in _NO_SPACE)


def _verdict(error: libvirt.libvirtError, otherwise: Translation) -> Translation:
    by_domain = _BY_DOMAIN.get(error.get_error_domain())
    if by_domain is not None:
        return by_domain
    if _says_full(error):
        return FULL
    if _errno(error) == errno.ENODEV or _BRIDGE_GONE.search(str(error)):
        return NO_NETWORK
    return _BY_CODE.get(error.get_error_code(), otherwise)


def translate(
    error: libvirt.libvirtError, host: HostRef, doing: str, otherwise: Translation = CALL_FAILED
) -> LubanError:
    """Our error for libvirt's. `doing` says in words what was tried; libvirt's own message follows."""
    verdict = _verdict(error, otherwise)
    return verdict.error(verdict.reason, f"host {host.name}: {doing}: {quoted(error)}{_bridge_remedy(error)}")


def quoted(error: Exception) -> str:
    """What an error says in one line of bounded length."""
    words = " ".join(_TIMESTAMP.sub("", str(error)).split())
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 4].rstrip()} ..."


def _bridge_remedy(error: libvirt.libvirtError) -> str:
    """What to do where the bridge is at fault; empty: it is not."""
    if found := _BRIDGE_GONE.search(str(error)):
        return f"; network.source: {found[1]} is no bridge on the host: create it or name another"
    if _BRIDGE_FORBIDDEN in str(error):
        return (
            "; a session daemon may use the bridges that the host's /etc/qemu/bridge.conf has in lines `allow BRIDGE`"
        )
    return ""


@contextmanager
def doing(host: HostRef, what: str, otherwise: Translation = CALL_FAILED) -> Iterator[None]:
    """Translate whatever libvirt raises inside."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, host, what, otherwise) from error


def find(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """The result of a lookup, or None if there is no such thing."""
    try:
        return call(*args, **kwargs)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _GONE:
            return None
        raise


def attempt(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """The result of a call whose failure means only that there is none; a lost connection still raises."""
    try:
        return call(*args, **kwargs)
    except libvirt.libvirtError as error:
        if _verdict(error, CALL_FAILED) is UNREACHABLE:
            raise
        return None


def first_supported(*calls: Callable[[], T]) -> T:
    """Try calls in turn until one is not refused as unsupported: older daemons know fewer flags."""
    for call in calls[:-1]:
        try:
            return call()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _UNSUPPORTED:
                raise
    return calls[-1]()


def is_supported(call: Callable[[], object]) -> bool:
    """Make a call that a driver may not know; False if it does not."""
    try:
        call()
    except libvirt.libvirtError as error:
        # None: the garbage collector freed some libvirt object in this thread just then, which clears the last error.
        if error.get_error_code() in {*_UNSUPPORTED, None}:
            return False
        raise
    return True


_FORWARD = re.compile(r"host forwarding rule '[a-z]+:([0-9.]*):([0-9]+)", re.IGNORECASE)
"""QEMU's words for an address of network type User that it cannot listen on, in all its versions."""


def taken_forward(error: libvirt.libvirtError) -> str:
    """The address and port that a domain could not be given because it cannot be listened on; empty: not so."""
    found = _FORWARD.search(str(error))
    return f"{found[1]}:{found[2]}" if found else ""


def exists_already(error: libvirt.libvirtError) -> bool:
    """Whether a volume could not be made because it is there."""
    return error.get_error_code() == libvirt.VIR_ERR_STORAGE_VOL_EXIST or "already exists" in str(error)


def _virsh(host: HostRef) -> str:
    return f"virsh -c {shlex.quote(host.uri)}"


def not_opened(error: libvirt.libvirtError, host: HostRef) -> LubanError:
    """Our error for a connection that could not be opened."""
    if error.get_error_code() in {*_UNSUPPORTED, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_XML_ERROR}:
        return invalid_uri(host, quoted(error))
    if error.get_error_domain() == libvirt.VIR_FROM_URI:
        return invalid_uri(host, quoted(error))
    return unreachable(host, quoted(error))


def unreachable(host: HostRef, why: str) -> HostUnreachable:
    """The daemon does not answer."""
    return HostUnreachable("HostUnreachable", f"host {host.name}: {host.uri}: {why}")


def not_reached(host: HostRef, why: str) -> NotReached:
    """The machine does not answer."""
    return NotReached("HostUnreachable", f"host {host.name}: {host.uri}: {why}")


def timed_out(host: HostRef, why: str) -> TemporaryError:
    """The daemon does not do in time what was asked about one domain."""
    return TemporaryError("LibvirtTimeout", f"host {host.name}: {why}")


def unexpected(host: HostRef, what: str, error: Exception, *, about_host: bool) -> TemporaryError:
    """Neither libvirt nor we have words for it; the log has its traceback."""
    why = f"{what}: {type(error).__name__}: {quoted(error)}"
    return unreachable(host, why) if about_host else TemporaryError("LibvirtError", f"host {host.name}: {why}")


def invalid_uri(host: HostRef, why: str) -> PermanentError:
    """The URI cannot work as it is."""
    return PermanentError(
        "InvalidURI",
        f"host {host.name}: {host.uri!r} is not a libvirt URI that can be used: {why}; "
        "correct hosts[].uri, for example qemu+tls://host-b/system",
    )


def insecure_host(host: HostRef, why: str) -> PermanentError:
    """The URI could be used, but only if whoever runs the operator says so."""
    return PermanentError(
        "InsecureHost",
        f"host {host.name}: hosts[].uri {host.uri!r} is refused: {why}; use qemu+tls with verified certificates, "
        "or start the operator with --allow-insecure-hosts",
    )


def user_network_refused(host: HostRef, why: str) -> PermanentError:
    """Network type User is for one machine: its guests reach whatever listens on that machine's 127.0.0.1."""
    return PermanentError(
        "UserNetworkRefused",
        f"host {host.name}: template.spec.network.type User is refused: {why}; use type Bridge or Network. For "
        "trying things out on one machine, hosts[].uri can lead to a socket of it and the operator run on it with "
        "--user-networking: guests then reach all that listens on its 127.0.0.1",
    )


def pool_not_found(host: HostRef, pool: str, *, inactive: bool) -> PermanentError:
    """The storage pool is missing or stopped."""
    state, remedy = ("is not active", "") if inactive else ("does not exist", f"pool-define-as {pool} ..., ")
    return PermanentError(
        "PoolNotFound",
        f"host {host.name}: storage pool {pool!r} {state}; remedy: {_virsh(host)} {remedy}pool-start {pool}",
    )


def pool_vanished(host: HostRef, pool: str, name: str, seconds: float) -> TemporaryError:
    """The storage pool of a domain that shall be removed is missing: maybe for a moment only."""
    return TemporaryError(
        "PoolNotFound",
        f"host {host.name}: storage pool {pool!r} does not exist, in which domain {name!r} has its disk; remedy: "
        f"{_virsh(host)} pool-define-as {pool} ..., pool-start {pool}. If it stays away, the domain is removed "
        f"without it after {seconds:g} s",
    )


def image_not_found(host: HostRef, pool: str, volume: str) -> PermanentError:
    """A volume that VMs are made from is missing."""
    return PermanentError(
        "ImageNotFound",
        f"host {host.name}: storage pool {pool!r} has no volume {volume!r}; remedy: "
        f"{_virsh(host)} vol-create-as {pool} {volume} 1 && "
        f"{_virsh(host)} vol-upload --pool {pool} {volume} FILE",
    )


def vms_volume(host: HostRef, pool: str, volume: str, made: str) -> PermanentError:
    """What the operator made for one VM is never what another is made from."""
    what = "is" if made == volume else f"is, or is made from, {made!r}:"
    return PermanentError(
        "VolumeRefused",
        f"host {host.name}: volume {volume!r} of storage pool {pool!r} {what} the disk or the seed of a VM; "
        "name another in image.volume or kernelBoot",
    )


def pool_full(host: HostRef, pool: str, *, available: int, needed: int) -> PermanentError:
    """Too little space to begin with. Sizes in bytes."""
    return PermanentError(
        "StoragePoolFull",
        f"host {host.name}: storage pool {pool!r} has {available} bytes free, at least {needed} are needed; "
        "free some space or enlarge the pool",
    )


def network_not_found(host: HostRef, network: str, *, inactive: bool) -> PermanentError:
    """The libvirt network is missing or stopped."""
    state = "is not active" if inactive else "does not exist"
    return PermanentError(
        "NetworkNotFound",
        f"host {host.name}: libvirt network {network!r} {state}; remedy: {_virsh(host)} net-start {network}",
    )


def foreign_domain(host: HostRef, name: str, why: str) -> ForeignDomain:
    """A domain stands in the way that is not ours; it stays as it is."""
    return ForeignDomain(
        "ForeignDomain",
        f"host {host.name}: domain {name!r} {why} and is left alone; rename or undefine it if it is not needed",
    )


def address_taken(host: HostRef, name: str, address: str, error: libvirt.libvirtError) -> PermanentError:
    """Somebody else listens where the domain's forward should: it cannot have that address."""
    return PermanentError(
        "AddressTaken",
        f"host {host.name}: domain {name!r} cannot have the address {address}, another VM or program on the host "
        "listens there; give the host a range of its own in hosts[].forwardRange, different from those of other "
        f"clusters, or stop what listens there ({quoted(error)})",
    )


def domain_missing(host: HostRef, uuid: str, what: str) -> PermanentError:
    """What is to rest or to go on is off, or gone."""
    return PermanentError("DomainMissing", f"host {host.name}: cannot {what} domain {uuid}: it is off, or gone")


def refused(host: HostRef, name: str, why: str) -> PermanentError:
    """The domain cannot be had on this host."""
    return PermanentError("DomainRefused", f"host {host.name}: domain {name!r}: {why}")
